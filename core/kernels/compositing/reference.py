"""Compositing in plain PyTorch, differentiable as often as asked."""

from __future__ import annotations

import torch
from torch import Tensor


def composite(
    sigmas: Tensor, values: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor, early_stop: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(values [N, C], opacity [N], depth [N], weights [M]): see :func:`core.kernels.compositing.composite`.

    Rays are padded to the longest one: a running sum over all rays, less its value at each ray's start, would lose
    the digits that matter in float32.
    """
    lengths = offsets.diff()
    rays, longest = lengths.shape[0], int(lengths.max()) if lengths.numel() else 0
    ray = torch.repeat_interleave(torch.arange(rays, device=offsets.device), lengths)
    place = ray * longest + torch.arange(sigmas.shape[0], device=offsets.device) - offsets[ray]

    def padded(x: Tensor) -> Tensor:
        return x.new_zeros(rays * longest, *x.shape[1:]).index_copy(0, place, x).view(rays, longest, *x.shape[1:])

    tau = padded(sigmas * (t_ends - t_starts))
    before = torch.cat([torch.zeros_like(tau[:, :1]), tau.cumsum(1)[:, :-1]], 1)
    transmittance = torch.exp(-before)
    weights = transmittance * -torch.expm1(-tau)
    if early_stop > 0:
        weights = weights * (transmittance >= early_stop)
    mids = padded(0.5 * (t_starts + t_ends))
    total = (weights[..., None] * padded(values)).sum(1)
    return total, weights.sum(1), (weights * mids).sum(1), weights.reshape(-1)[place]
