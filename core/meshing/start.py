"""The shapes that a signed distance starts from, as exact distances at points."""

from __future__ import annotations

import torch
from torch import Tensor

from core.meshing.files import centred, read_mesh
from core.types import Mesh


def sphere_distance(points: Tensor, radius: float) -> Tensor:
    """[N] signed distance to a sphere round the origin."""
    return points.norm(dim=-1) - radius


def ellipsoid_distance(points: Tensor, radii: tuple[float, float, float]) -> Tensor:
    """[N] signed distance to an axis-aligned ellipsoid round the origin, in float64.

    The nearest point is ``x_i = r_i^2 y_i / (t + r_i^2)`` for the largest root t of
    ``sum (r_i y_i / (t + r_i^2))^2 = 1`` (Eberly 2013, "Distance from a Point to an Ellipsoid", section 3); bisection
    finds it, for Newton's steps run away next to the axes.
    """
    y, r = points.double().abs().clamp(min=1e-9), points.new_tensor(radii, dtype=torch.float64)
    least = r.argmin()
    low = r[least] * y[:, least] - r[least].square()
    high = (r * y).norm(dim=-1) - r[least].square()
    for _ in range(80):
        t = (low + high) / 2
        beyond = (r * y / (t[:, None] + r.square())).square().sum(-1) > 1
        low, high = torch.where(beyond, t, low), torch.where(beyond, high, t)
    nearest = r.square() * y / (high[:, None] + r.square())
    sign = torch.where((y / r).square().sum(-1) < 1, -1.0, 1.0)
    return sign * (y - nearest).norm(dim=-1)


def load_mesh(path: str, radius: float) -> Mesh:
    """The mesh of a file, centred and scaled until its farthest vertex is ``radius`` from the origin.

    GLB, GLTF and OBJ have y up and the front on +z; other files are taken as they are (z up, front on +x).

    Raises:
        UserError: no such file, not a mesh, or one without usable faces.
    """
    return centred(read_mesh(path, "geometry.file"), radius)
