"""What losses on a surface look at, from the surface itself."""

from __future__ import annotations

import torch
from torch import Tensor

from core.meshing.normals import edges_of, face_normals
from core.types import Mesh


def surface_signal(mesh: Mesh, signal: str) -> Tensor:
    """A signal of ``core.signals`` that follows from a surface; differentiable in its vertices.

    ``face-normals`` [E, 2, 3]: unit normals of the two faces at each inner edge. ``umbrella`` [V, 3]: from each vertex
    to the mean of its neighbours (the uniform Laplacian), world units.
    """
    vertices, count = mesh.vertices, len(mesh.vertices)
    edges, pairs = edges_of(mesh.faces, count)
    if signal == "face-normals":
        return face_normals(vertices, mesh.faces)[pairs[(pairs >= 0).all(1)]]
    if signal == "umbrella":
        both = torch.cat([edges, edges.flip(1)])
        total = torch.zeros_like(vertices).index_add(0, both[:, 0], vertices[both[:, 1]])
        degree = torch.bincount(both[:, 0], minlength=count)[:, None]
        return torch.where(degree > 0, total / degree.clamp(min=1) - vertices, 0.0)
    raise NotImplementedError(f"a surface does not give '{signal}'")

