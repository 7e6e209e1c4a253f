"""Points spread over a mesh by area."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from core.errors import UserError
from core.meshing.normals import face_vectors
from core.types import Mesh, Points


def sample_surface(mesh: Mesh, count: int, generator: torch.Generator | None = None) -> Points:
    """``count`` points spread evenly by area, with the faces' normals and, where the mesh has any, colours.

    Places within a face are uniform (Turk 1990); differentiable in the vertices, the choice of places is not. The same
    generator gives the same points.

    Raises:
        UserError: a mesh without area (no faces, or degenerate ones only), or vertices that are not finite.
    """
    vertices, faces = mesh.vertices, mesh.faces
    if len(faces) == 0:
        raise UserError("the mesh has no faces, so no points can be drawn from it")
    vectors = face_vectors(vertices, faces)
    area = vectors.detach().norm(dim=-1).double()
    if not bool(torch.isfinite(area).all()) or float(area.sum()) <= 0:
        raise UserError("the mesh has no area or vertices that are not finite, so no points can be drawn from it")
    roll = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    total = area.cumsum(0)
    # Stratified along the faces' order: the share of points in any part of the mesh strays by one, not by its root.
    places = (torch.arange(count, dtype=torch.float64) + roll[:, 0]) / max(count, 1)
    chosen = torch.searchsorted(total, places.to(total) * total[-1]).clamp(max=len(faces) - 1)
    bary = _uniform(roll[:, 1:]).to(vertices)
    corners = faces[chosen]
    positions = _blend(vertices, corners, bary)
    normals = torch.nn.functional.normalize(vectors[chosen], dim=-1)
    return Points(positions, normals, colors_at(mesh, chosen, bary))


def _uniform(roll: Tensor) -> Tensor:
    """[N, 2] in [0, 1) to barycentric coordinates [N, 3], uniform by area."""
    root = roll[:, 0].sqrt()
    return torch.stack([1 - root, root * (1 - roll[:, 1]), root * roll[:, 1]], -1)


def _blend(values: Tensor, corners: Tensor, bary: Tensor) -> Tensor:
    return (values[corners] * bary[..., None]).sum(1)


def colors_at(mesh: Mesh, face: Tensor, bary: Tensor) -> Tensor | None:
    """[N, 3] sRGB at places on faces [N] given by barycentric coordinates [N, 3]: from the texture, else from the
    vertices' colours; None where the mesh has neither."""
    corners = mesh.faces[face]
    if mesh.texture is not None and mesh.uv is not None:
        uv = _blend(mesh.uv, corners, bary)
        grid = (uv * uv.new_tensor([2.0, -2.0]) + uv.new_tensor([-1.0, 1.0]))[None, None]
        picture = mesh.texture.to(uv).permute(2, 0, 1)[None]
        seen = torch.nn.functional.grid_sample(picture, grid, align_corners=False, padding_mode="border")
        return seen[0, :, 0].T
    return None if mesh.colors is None else _blend(mesh.colors, corners, bary)


def nearest_colors(points: Tensor, mesh: Mesh) -> Tensor | None:
    """[N, 3] the colours of a mesh's vertices nearest to ``points`` [N, 3]; None where it has none."""
    if mesh.colors is None:
        return None
    _, index = cKDTree(mesh.vertices.detach().cpu().numpy()).query(points.detach().cpu().numpy())
    return mesh.colors[torch.from_numpy(index).to(mesh.colors.device)]
