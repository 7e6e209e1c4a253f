"""Compositing by nerfacc's packed scans on NVIDIA GPUs."""

from __future__ import annotations

import nerfacc
import torch
from torch import Tensor

from . import reference


def composite(
    sigmas: Tensor, values: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor, early_stop: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(values [N, C], opacity [N], depth [N], weights [M]): see :func:`core.kernels.compositing.composite`."""
    if sigmas.dtype != torch.float32 or not sigmas.numel():  # its scans know float32 only
        return reference.composite(sigmas, values, t_starts, t_ends, offsets, early_stop)
    lengths, rays = offsets.diff(), offsets.shape[0] - 1
    ray_ids = torch.repeat_interleave(torch.arange(rays, device=offsets.device), lengths)
    packed = torch.stack([offsets[:-1], lengths], -1)
    weights, transmittance, _ = nerfacc.render_weight_from_density(t_starts, t_ends, sigmas, packed_info=packed)
    if early_stop > 0:
        weights = weights * (transmittance >= early_stop)
    columns = torch.cat([values, torch.ones_like(values[:, :1]), (0.5 * (t_starts + t_ends))[:, None]], -1)
    sums = nerfacc.accumulate_along_rays(weights, columns, ray_indices=ray_ids, n_rays=rays)
    return sums[:, :-2], sums[:, -2], sums[:, -1], weights
