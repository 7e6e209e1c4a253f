"""Splatting by gsplat's tile rasteriser on NVIDIA GPUs."""

from __future__ import annotations

from typing import Any

import gsplat
import torch
from torch import Tensor

from . import ALPHA_MIN, reference

_TILE = 16


def rasterize(
    means: Tensor,
    conics: Tensor,
    opacities: Tensor,
    values: Tensor,
    depths: Tensor,
    height: int,
    width: int,
    abs_gradient: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(values [B, H, W, C], opacity [B, H, W]): see :func:`core.kernels.splatting.rasterize`."""
    if means.dtype != torch.float32 or not means.numel() or not values.shape[2]:  # its kernels know float32 only
        return reference.rasterize(means, conics, opacities, values, depths, height, width, abs_gradient)
    views = means.shape[0]
    across, down = -(-width // _TILE), -(-height // _TILE)
    radii = _radii(conics, opacities, depths)
    _, found, flat = gsplat.isect_tiles(means.detach(), radii, depths.contiguous(), _TILE, across, down)
    offsets = gsplat.isect_offset_encode(found, views, across, down)
    # A view of its own: gsplat leaves the absolute gradient as an attribute of the very tensor that it was given.
    placed = means.view_as(means)
    total, opacity = gsplat.rasterize_to_pixels(
        placed, conics, values, opacities, width, height, _TILE, offsets, flat, absgrad=abs_gradient is not None
    )
    if abs_gradient is not None and placed.requires_grad:
        placed.register_hook(lambda _: _collect(placed, abs_gradient))
    return total, opacity[..., 0]


@torch.no_grad()
def _radii(conics: Tensor, opacities: Tensor, depths: Tensor) -> Tensor:
    """[B, N, 2] int32 half sides in pixels of the box that holds alpha >= 1/255; 0 where nothing is drawn."""
    a, b, c = conics.unbind(-1)
    det = a * c - b * b
    drawn = (depths > 0) & (opacities >= ALPHA_MIN) & (det > 0) & (a > 0)
    reach = 2 * torch.log((opacities / ALPHA_MIN).clamp(min=1))
    sides = torch.sqrt(reach[..., None] * torch.stack([c, a], -1) / torch.where(drawn, det, 1)[..., None]).ceil() + 1
    sides = torch.where(drawn[..., None], sides, 0).clamp(max=2**20).int()
    return sides if _takes_two() else sides.amax(-1).contiguous()


def _takes_two() -> bool:
    """gsplat takes a radius per axis from version 1.5 on."""
    version: Any = getattr(gsplat, "__version__", "0")
    return tuple(int(part) for part in version.split(".")[:2]) >= (1, 5)


@torch.no_grad()
def _collect(placed: Any, total: Tensor) -> None:
    total += placed.absgrad.to(total)
