"""Pictures of a set of Gaussians: projection, colours and blending put together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.spherical_harmonics import sh_colors
from core.types import Cameras, Splats, SplatStatistics

from . import ALPHA_MIN, rasterize
from .projection import Projected, facing_normals, project, view_directions


class SplatPictures(NamedTuple):
    """What :func:`draw` gives, for B views of H x W pixels.

    Attributes:
        rgb: [B, H, W, 3] times opacity, not over a background.  opacity: [B, H, W, 1] in [0, 1).
        depth: [B, H, W, 1] along the viewing axis, times opacity (the sum of w * depth).
        normal: [B, H, W, 3] world axes, length at most the opacity.
        radii: [B, N] three standard deviations in pixels; 0 where not drawn.
        visible: [B, N] whether any pixel may show the Gaussian (what hides it is not asked).
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    radii: Tensor
    visible: Tensor


def draw(splats: Splats, cameras: Cameras, backend: str | None = None) -> SplatPictures:
    """Draw Gaussians from any cameras.

    Differentiable in means, scales, rotations, opacities and colours. Where ``splats.statistics`` is there, the
    backward pass adds to it what sets of Gaussians are grown by.
    """
    flat = project(splats, cameras)
    views, count = flat.depths.shape
    opacities = splats.opacities.expand(views, count)
    with torch.no_grad():
        visible = _visible(flat, opacities, cameras)
    colors = sh_colors(splats.sh, view_directions(splats, cameras))
    values = torch.cat([colors, flat.depths[..., None], facing_normals(splats, cameras)], -1)
    absolute = None
    if splats.statistics is not None and flat.means.requires_grad:
        absolute = torch.zeros_like(flat.means, requires_grad=False)
        _watch(splats.statistics, flat, absolute, visible, cameras)
    depths = torch.where(visible, flat.depths, 0)
    found = rasterize(
        flat.means, flat.conics, opacities, values, depths, cameras.height, cameras.width, absolute, backend
    )
    rgb, depth, normal = found.values.split([3, 1, 3], -1)
    return SplatPictures(rgb, found.opacity[..., None], depth, normal, flat.radii, visible)


def _visible(flat: Projected, opacities: Tensor, cameras: Cameras) -> Tensor:
    size = flat.means.new_tensor([cameras.width, cameras.height])
    reach = flat.radii[..., None] * 1.2  # alpha falls under 1 / 255 at 3.33 deviations
    inside = ((flat.means + reach > 0) & (flat.means - reach < size)).all(-1)
    return inside & (flat.depths > 0) & (opacities >= ALPHA_MIN)


def _watch(statistics: SplatStatistics, flat: Projected, absolute: Tensor, visible: Tensor, cameras: Cameras) -> None:
    """When the gradient of the means has come, note its size: as if the pictures were two units high, and as if each
    view's loss had weight 1 (as in gsplat), so that neither resolution nor batch move a threshold."""
    scale = len(cameras) * cameras.height / 2
    share = flat.radii / cameras.height

    def note(_: Tensor) -> None:
        with torch.no_grad():
            statistics.gradient += ((absolute * scale).norm(dim=-1) * visible).sum(0).to(statistics.gradient)
            statistics.count += visible.sum(0).to(statistics.count)
            torch.maximum(statistics.radius, (share * visible).amax(0).to(statistics.radius), out=statistics.radius)

    flat.means.register_hook(note)
