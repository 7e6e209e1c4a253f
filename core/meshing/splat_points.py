"""Pictures of point sets: each point a square of pixels, the nearest in front."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import UserError
from core.types import Cameras, Points, Render


@torch.no_grad()
def render_points(points: Points, cameras: Cameras, radius: float = 0.01, background: float = 0.5) -> Render:
    """Depth, colour and normals of a set of points; a z-buffer, without gradients.

    Args:
        points: colours default to white; normals may be missing.
        radius: half the side of a point's square, in world units; at least one pixel is drawn.
        background: grey level in [0, 1] where no point is.

    Raises:
        UserError: ``radius`` is negative, or positions are not finite.
    """
    if radius < 0:
        raise UserError(f"points are drawn with a radius of at least 0, not {radius}")
    if not bool(torch.isfinite(points.positions).all()):
        raise UserError("points cannot be drawn: some positions are not finite")
    pixels, depth = cameras.project(points.positions)
    views = enumerate(zip(pixels, depth, strict=True))
    owner = torch.stack([_nearest(xy, z, cameras, radius, b) for b, (xy, z) in views])
    shape = (len(cameras), cameras.height, cameras.width)
    hit = (owner >= 0).view(*shape, 1)
    chosen = owner.clamp(min=0).view(-1)
    colours = torch.ones_like(points.positions) if points.colors is None else points.colors
    empty = len(points.positions) == 0

    def spread(values: Tensor, other: float) -> Tensor:
        if empty:
            return values.new_full((*shape, values.shape[-1]), other)
        return torch.where(hit, values[chosen].view(*shape, -1), values.new_tensor(other))

    image = torch.arange(len(cameras), device=owner.device).repeat_interleave(cameras.height * cameras.width)
    far = depth[image, chosen].view(*shape, 1) if not empty else depth.new_zeros(*shape, 1)
    return Render(
        rgb=spread(colours, background),
        opacity=hit.to(depth.dtype),
        cameras=cameras,
        depth=torch.where(hit, far, torch.zeros_like(far)),
        normal=None if points.normals is None else spread(points.normals, 0.0),
    )


def _nearest(pixels: Tensor, depth: Tensor, cameras: Cameras, radius: float, index: int) -> Tensor:
    """[H * W] index of the point in front at each pixel, -1 where there is none."""
    height, width = cameras.height, cameras.width
    buffer = torch.full((height * width,), torch.inf, dtype=depth.dtype, device=depth.device)
    owner = torch.full((height * width,), -1, dtype=torch.int64, device=depth.device)
    seen = depth > 1e-6
    pixels = torch.where(seen[:, None], pixels, -1.0).clamp(-1e6, 1e6)  # far outside stays an integer
    reach = torch.where(seen, radius * cameras.focal[index] / depth.clamp(min=1e-6), 0.0).clamp(max=max(height, width))
    low = torch.ceil(pixels - reach[:, None] - 0.5).long()
    high = torch.floor(pixels + reach[:, None] - 0.5).long()
    small = (high < low).any(-1, keepdim=True)
    own = torch.floor(pixels).long()
    low, high = torch.where(small, own, low), torch.where(small, own, high)
    span = int((high - low).max()) + 1 if len(depth) else 0
    offsets = [(dx, dy) for dx in range(span) for dy in range(span)]
    keys = []
    for dx, dy in offsets:
        x, y = low[:, 0] + dx, low[:, 1] + dy
        ok = seen & (x <= high[:, 0]) & (y <= high[:, 1]) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        keys.append((ok.nonzero()[:, 0], (y * width + x)[ok]))
    for point, cell in keys:
        buffer.scatter_reduce_(0, cell, depth[point], "amin")
    for point, cell in keys:
        front = depth[point] <= buffer[cell]
        owner[cell[front]] = point[front]
    return owner
