"""Splatting in plain PyTorch: every Gaussian against every pixel, any device, any float type."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import ALPHA_MIN, STOP

_PAIRS = 1 << 22  # Gaussian-pixel pairs held at once: what backward needs of them is computed again there


def rasterize(
    means: Tensor,
    conics: Tensor,
    opacities: Tensor,
    values: Tensor,
    depths: Tensor,
    height: int,
    width: int,
    abs_gradient: Tensor | None,
    blending: Callable[..., Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(values [B, H, W, C], opacity [B, H, W]): see :func:`core.kernels.splatting.rasterize`; ``blending`` stands for
    :func:`blend`."""
    rows = torch.arange(height, device=means.device, dtype=means.dtype) + 0.5
    columns = torch.arange(width, device=means.device, dtype=means.dtype) + 0.5
    pixels = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], -1)
    pictures = []
    for view in range(means.shape[0]):
        drawn = depths[view] > 0
        order = torch.argsort(depths[view][drawn], stable=True)
        inputs = [x[view][drawn][order] for x in (means, conics, opacities, values)]
        place = torch.nonzero(drawn)[:, 0][order]
        sink = None if abs_gradient is None else (abs_gradient[view], place)
        step = max(1, _PAIRS // max(1, len(place)))
        parts = [_at(part, inputs, sink, height * width > step, blending or blend) for part in pixels.split(step)]
        pictures.append(torch.cat(parts))
    if not pictures:
        return values.new_zeros(0, height, width, values.shape[2]) + values.sum(), values.new_zeros(0, height, width)
    total = torch.stack(pictures).view(-1, height, width, values.shape[2] + 1)
    return total[..., :-1], total[..., -1]


def _at(
    pixels: Tensor,
    inputs: list[Tensor],
    sink: tuple[Tensor, Tensor] | None,
    again: bool,
    blending: Callable[..., Tensor],
) -> Tensor:
    """[P, C + 1] values and opacity at pixels [P, 2]; ``again`` computes what backward needs a second time there."""

    def at(means: Tensor, *rest: Tensor) -> Tensor:
        apart = pixels[:, None] - means  # [P, N, 2]
        if sink is not None and apart.requires_grad:
            apart.register_hook(lambda g: _collect(g, *sink))
        return blending(apart, *rest)

    return checkpoint(at, *inputs, use_reentrant=False) if again else at(*inputs)


def blend(apart: Tensor, conics: Tensor, opacities: Tensor, values: Tensor) -> Tensor:
    """[P, C + 1] values and opacity at P pixels that lie ``apart`` [P, N, 2] from N Gaussians, the nearest first."""
    dx, dy = apart.unbind(-1)
    a, b, c = conics.unbind(-1)
    alpha = opacities * torch.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))
    alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0)
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weights = alpha * before * (after >= STOP)
    return torch.cat([weights @ values, weights.sum(1, keepdim=True)], 1)


@torch.no_grad()
def _collect(gradient: Tensor, total: Tensor, place: Tensor) -> None:
    """Add the absolute gradients [P, N, 2], summed over pixels, to the rows ``place`` of ``total``."""
    total.index_add_(0, place, gradient.abs().sum(0).to(total))
