"""From Gaussians in space to Gaussians in the picture: the local affine approximation of the projection (EWA).

Zwicker et al. 2001 ("EWA Volume Splatting", eq. 31); Kerbl et al. 2023, eq. 5. In PyTorch, any device and float type,
differentiable as often as asked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from core.types import Cameras, Splats

LOW_PASS = 0.3
"""Added to both diagonal entries of the projected covariance, in square pixels: nothing is thinner than a pixel."""
NEAR = 0.05
"""Gaussians whose centre lies nearer to the camera's plane than this, in world units, are not drawn."""
_MARGIN = 0.15  # of the picture's size: beyond it the affine approximation is that of the margin


class Projected(NamedTuple):
    """What :func:`project` gives.

    Attributes:
        means: [B, N, 2] pixels.  conics: [B, N, 3] inverse covariance (a, b, c).
        depths: [B, N] along the viewing axis; 0 for what is not drawn.
        radii: [B, N] three standard deviations along the longer axis, in pixels, without gradient; 0 where not drawn.
    """

    means: Tensor
    conics: Tensor
    depths: Tensor
    radii: Tensor


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """[..., 3, 3] from quaternions [..., 4] (w, x, y, z) of any length; one of length 0 is the identity."""
    length = quaternions.norm(dim=-1, keepdim=True)
    unit = quaternions.new_tensor([1.0, 0.0, 0.0, 0.0])
    w, x, y, z = torch.where(length > 1e-12, quaternions / length.clamp(min=1e-12), unit).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def project(splats: Splats, cameras: Cameras) -> Projected:
    """Where each of N Gaussians falls in each of B pictures, and how large it is there.

    Any size of picture, any principal point. What is behind the camera, or nearer than :data:`NEAR`, has depth 0.
    """
    turn = cameras.world_to_camera[:, None, :3] * cameras.c2w.new_tensor([1.0, -1.0, -1.0])[:, None]  # x right, y down
    axes = rotation_matrices(splats.rotations) * splats.scales[:, None]  # [N, 3, 3], columns of one deviation
    axes = turn[..., :3] @ axes  # [B, N, 3, 3]
    local = (turn[..., :3] @ splats.means[..., None])[..., 0] + turn[..., 3]  # [B, N, 3]
    front = (local[..., 2] > NEAR) & torch.isfinite(local).all(-1)
    depth = torch.where(front, local[..., 2], 1)
    focal = cameras.focal[:, None]
    at = torch.where(front[..., None], local[..., :2], 0) / depth[..., None]
    means = at * focal[..., None] + cameras.center[:, None]
    slope = _near_the_picture(at, cameras)
    # Rows of the Jacobian times the axes: d (f x / z) = f / z (dx - x / z dz).
    flat = (focal / depth)[..., None, None] * (axes[..., :2, :] - slope[..., None] * axes[..., 2:, :])  # [B, N, 2, 3]
    flat = torch.where(front[..., None, None] & torch.isfinite(flat), flat, 0)
    xx, xy, yy = (flat[..., 0, :].square(), flat[..., 0, :] * flat[..., 1, :], flat[..., 1, :].square())
    a, b, c = xx.sum(-1) + LOW_PASS, xy.sum(-1), yy.sum(-1) + LOW_PASS
    # Rounding may leave less than the low-pass alone has; for an enormous Gaussian even a negative number.
    det = (a * c - b * b).clamp(min=LOW_PASS * LOW_PASS)
    with torch.no_grad():
        widest = (a + c) / 2 + ((a - c).square() / 4 + b * b).sqrt()
        radii = torch.where(front, 3 * widest.sqrt(), 0)
    conics = torch.stack([c, -b, a], -1) / det[..., None]
    return Projected(means, conics, torch.where(front, depth, 0), radii)


def _near_the_picture(at: Tensor, cameras: Cameras) -> Tensor:
    """x / z and y / z [B, N, 2], clamped a little outside the picture: at right angles to the viewing axis the
    approximation explodes."""
    size = cameras.c2w.new_tensor([cameras.width, cameras.height])
    focal = cameras.focal[:, None]
    low = (-cameras.center - _MARGIN * size) / focal
    high = (size - cameras.center + _MARGIN * size) / focal
    return at.clamp(low[:, None], high[:, None])


def facing_normals(splats: Splats, cameras: Cameras) -> Tensor:
    """[B, N, 3] unit: each Gaussian's shortest axis, turned to the camera."""
    shortest = splats.scales.detach().argmin(-1)
    index = shortest[:, None, None].expand(-1, 3, 1)
    axis = rotation_matrices(splats.rotations).gather(2, index)[..., 0]
    towards = cameras.position[:, None] - splats.means.detach()
    return axis * torch.where((axis.detach() * towards).sum(-1, keepdim=True) < 0, -1.0, 1.0)


def view_directions(splats: Splats, cameras: Cameras) -> Tensor:
    """[B, N, 3] unit, from each camera to each Gaussian's centre."""
    return F.normalize(splats.means - cameras.position[:, None], dim=-1, eps=1e-9)
