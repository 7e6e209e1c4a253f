"""The differentiable half of antialiasing, shared by all backends: few pixels lie at silhouettes."""

from __future__ import annotations

import torch
from torch import Tensor


def blend(pictures: Tensor, vertices: Tensor, edges: Tensor, front: Tensor) -> Tensor:
    """Mix pixels across silhouettes: see :func:`core.kernels.mesh_raster.antialias`.

    Args:
        pictures: [B, H, W, C].  vertices: [B, V, 3] homogeneous pixels.
        edges: [B, H, W, 2, 2] int64, the vertices of the silhouette between a pixel and its right (0) and lower (1)
            neighbour; -1 where there is none.
        front: [B, H, W, 2] int64, 0 where the pixel itself sees the nearer face, 1 where its neighbour does.
    """
    batch, height, width, channels = pictures.shape
    b, y, x, axis = (edges[..., 0] >= 0).nonzero(as_tuple=True)
    if not len(b):
        return pictures
    ends, other = edges[b, y, x, axis], front[b, y, x, axis]
    here = (b * height + y) * width + x
    there = here + torch.where(axis == 0, 1, width)
    near_pixel, far_pixel = torch.where(other == 0, here, there), torch.where(other == 0, there, here)
    share = _crossing(vertices, b, ends, axis, near_pixel % (height * width), other, width)
    grows = share.detach() > 0.5
    taker, giver = torch.where(grows, far_pixel, near_pixel), torch.where(grows, near_pixel, far_pixel)
    weight = torch.where(grows, share - 0.5, 0.5 - share).to(pictures)  # abs() has no slope at 1/2
    total = weight.new_zeros(batch * height * width).index_add(0, taker, weight)
    weight = weight / total[taker].clamp(min=1.0)
    flat = pictures.reshape(-1, channels)
    return flat.index_add(0, taker, weight[:, None] * (flat[giver] - flat[taker])).view_as(pictures)


def _crossing(
    vertices: Tensor, b: Tensor, ends: Tensor, axis: Tensor, pixel: Tensor, other: Tensor, width: int
) -> Tensor:
    """[K] where the edge crosses the line from the near pixel's centre (0) to the far one's (1)."""
    corner = vertices[b[:, None], ends]  # [K, 2, 3]
    place = corner[..., :2] / corner[..., 2:]
    centre = torch.stack([pixel % width, pixel // width], -1).to(place) + 0.5
    local = place - centre[:, None]
    upright = (axis == 0)[:, None]
    along = torch.where(upright, local[..., 0], local[..., 1])
    beside = torch.where(upright, local[..., 1], local[..., 0])
    t = beside[:, 0] / (beside[:, 0] - beside[:, 1])
    at = along[:, 0] + t * (along[:, 1] - along[:, 0])
    return torch.where(other == 0, at, -at).clamp(0, 1)
