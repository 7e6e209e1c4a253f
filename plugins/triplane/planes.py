"""Bilinear look-up in three axis-aligned planes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AXES = ((0, 1), (0, 2), (1, 2))
"""Which coordinates span each plane: along its columns, along its rows."""


def sample_planes(planes: Tensor, points: Tensor) -> Tensor:
    """[3, N, C] features of ``planes`` [3, C, R, R] at points [N, 3] in [-1, 1]; clamped outside.

    The outermost values lie on the cube's sides. Differentiable in both, twice in the points: ``grid_sample`` has no
    second derivative, so points that want a gradient (normals) take a slower way of the same values.
    """
    if points.requires_grad and torch.is_grad_enabled():
        return torch.stack([_gathered(plane, points[:, axes]) for plane, axes in zip(planes, AXES, strict=True)])
    at = torch.stack([points[:, axes] for axes in AXES])[:, None]
    if not len(points):
        return planes.new_zeros(3, 0, planes.shape[1])
    found = F.grid_sample(planes, at.to(planes), mode="bilinear", padding_mode="border", align_corners=True)
    return found[:, :, 0].transpose(1, 2)


def _gathered(plane: Tensor, at: Tensor) -> Tensor:
    """[N, C] of one plane [C, R, R] at [N, 2]: the four neighbours' weighted sum, in plain operations."""
    size = plane.shape[1]
    x, y = ((at.clamp(-1, 1) + 1) / 2 * (size - 1)).unbind(-1)
    column, row = (v.detach().floor().long().clamp(0, size - 2) for v in (x, y))
    right, down = (x - column)[:, None], (y - row)[:, None]
    rows = plane.flatten(1).t()

    def value(dy: int, dx: int) -> Tensor:
        return F.embedding((row + dy) * size + column + dx, rows)

    top = value(0, 0) * (1 - right) + value(0, 1) * right
    bottom = value(1, 0) * (1 - right) + value(1, 1) * right
    return top * (1 - down) + bottom * down
