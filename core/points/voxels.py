"""Features of points on a grid and back (Liu et al. 2019, "Point-Voxel CNN for Efficient 3D Deep Learning")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def grid_coordinates(coords: Tensor, resolution: int) -> Tensor:
    """Where points [B, 3, N] lie on a grid, in cells, [B, 3, N] in [0, R - 1]: their mean in the middle, the farthest
    point half the grid away."""
    centred = coords - coords.mean(2, keepdim=True)
    reach = centred.norm(dim=1, keepdim=True).amax(2, keepdim=True).clamp(min=1e-8)
    return ((centred / (2 * reach) + 0.5) * resolution).clamp(0, resolution - 1)


def voxelise(features: Tensor, cells: Tensor, resolution: int) -> Tensor:
    """[B, C, R, R, R] mean of the features [B, C, N] of the points that round to each voxel; 0 where there are none."""
    batch, channels, _ = features.shape
    x, y, z = cells.round().long().unbind(1)
    index = ((x * resolution + y) * resolution + z)[:, None]
    total = features.new_zeros(batch, channels, resolution**3)
    total = total.scatter_add(2, index.expand(-1, channels, -1), features)
    count = features.new_zeros(batch, 1, resolution**3).scatter_add(2, index, torch.ones_like(features[:, :1]))
    return (total / count.clamp(min=1)).view(batch, channels, resolution, resolution, resolution)


def devoxelise(voxels: Tensor, cells: Tensor) -> Tensor:
    """[B, C, N] trilinear interpolation of voxels [B, C, R, R, R] at ``cells`` [B, 3, N] in [0, R - 1]."""
    place = cells.flip(1).transpose(1, 2) * (2 / max(voxels.shape[-1] - 1, 1)) - 1  # z is the last axis, the grid's x
    return F.grid_sample(voxels, place[:, :, None, None], align_corners=True)[:, :, :, 0, 0]
