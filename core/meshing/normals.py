"""Normals of triangle meshes in PyTorch, differentiable in the vertices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def face_vectors(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F, 3] normals of length twice the face's area, outwards of counter-clockwise faces [F, 3]."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return torch.linalg.cross(b - a, c - a, dim=-1)


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F, 3] unit normals; zero for a degenerate face."""
    return F.normalize(face_vectors(vertices, faces), dim=-1, eps=1e-20)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """[V, 3] unit normals, the mean of the faces round a vertex weighted by area; zero where no face is."""
    vectors = face_vectors(vertices, faces)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total = total.index_add(0, faces[:, k], vectors)
    return F.normalize(total, dim=-1, eps=1e-20)


def edges_of(faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Every edge once, [E, 2] vertex indices rising, and the two faces along it, [E, 2]; -1 where there is but one.

    Args:
        faces: [F, 3] int64.  count: vertices of the mesh. An edge of more than two faces keeps two of them.
    """
    start, end = torch.cat([faces[:, k] for k in (0, 1, 2)]), torch.cat([faces[:, k] for k in (1, 2, 0)])
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    key, inverse = torch.unique(low * count + high, return_inverse=True)
    owner = torch.arange(len(faces), device=faces.device).repeat(3)
    pair = torch.full((2, len(key)), -1, dtype=torch.int64, device=faces.device)
    pair[0].scatter_reduce_(0, inverse, owner, "amax", include_self=True)
    rest = owner != pair[0][inverse]
    pair[1].scatter_reduce_(0, inverse[rest], owner[rest], "amax", include_self=True)
    return torch.stack([key // count, key % count], 1), pair.T.contiguous()
