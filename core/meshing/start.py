"""The shapes that a signed distance starts from, as exact distances at points."""

from __future__ import annotations

from pathlib import Path

import torch
import trimesh
from torch import Tensor

from core.errors import UserError
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
    source = Path(path).expanduser()
    if not source.is_file():
        raise UserError(f"geometry.file: there is no file {path}")
    try:
        mesh = trimesh.load(source, force="mesh", process=False)
        vertices, faces = torch.as_tensor(mesh.vertices).float(), torch.as_tensor(mesh.faces).long()
    except Exception as error:  # whatever a reader of some format raises on a broken file
        raise UserError(f"geometry.file: {path} cannot be read as a mesh: {error}") from error
    if not len(faces) or not bool(torch.isfinite(vertices).all()):
        raise UserError(f"geometry.file: {path} has no faces, or vertices that are not finite")
    if source.suffix.lower() in (".glb", ".gltf", ".obj"):
        vertices = vertices[:, [2, 0, 1]]
    used = vertices[faces.unique()]
    vertices = vertices - (used.amin(0) + used.amax(0)) / 2
    return Mesh(vertices * (radius / vertices[faces.unique()].norm(dim=-1).max().clamp(min=1e-9)), faces)
