"""What lies between a raw surface and a mesh worth unwrapping: parts, smoothing, decimation, normals."""

from __future__ import annotations

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def face_vectors(vertices: F32, faces: I64) -> F64:
    """[F, 3] normals of length twice the face's area, outwards."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return np.cross(b - a, c - a)


def signed_volume(vertices: F32, faces: I64) -> float:
    """The enclosed volume in cubed world units; negative for a closed surface turned inside out."""
    corner = vertices[faces[:, 0]].astype(np.float64)
    return float((corner * face_vectors(vertices, faces)).sum() / 6)


def _adjacency(count: int, faces: I64) -> sparse.csr_matrix:
    """[V, V] ones where an edge joins two vertices."""
    a, b = np.concatenate([faces, np.roll(faces, -1, 1)]).T[[0, 1]]
    rows, cols = np.concatenate([a, b]), np.concatenate([b, a])
    matrix = sparse.coo_matrix((np.ones(len(rows), np.float32), (rows, cols)), shape=(count, count)).tocsr()
    matrix.data[:] = 1
    return matrix


def compact(vertices: F32, faces: I64) -> tuple[F32, I64]:
    """Drop faces with a repeated vertex and vertices that no face uses."""
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    used, index = np.unique(faces, return_inverse=True)
    return vertices[used], index.reshape(-1, 3).astype(np.int64)


def largest_parts(vertices: F32, faces: I64, smallest: float) -> tuple[F32, I64]:
    """Drop connected parts with less than ``smallest`` times the area of the largest.

    They stay where they are needed: parts are added, largest first, until nine tenths of the whole area are
    there, so a swarm of equals survives.
    """
    _, label = connected_components(_adjacency(len(vertices), faces), directed=False)
    part = label[faces[:, 0]]
    area = np.bincount(part, np.linalg.norm(face_vectors(vertices, faces), axis=1) / 2, label.max() + 1)
    order = np.argsort(-area)
    before = np.cumsum(area[order]) - area[order]
    keep = np.zeros(len(area), bool)
    keep[order] = (area[order] >= smallest * area.max()) | (before < 0.9 * area.sum())
    return compact(vertices, faces[keep[part]])


def taubin(vertices: F32, faces: I64, rounds: int) -> F32:
    """Smooth without shrinking: alternate steps of 0.5 and -0.53 of the umbrella operator (Taubin 1995)."""
    if rounds <= 0:
        return vertices
    joined = _adjacency(len(vertices), faces)
    mean = sparse.diags(1 / np.maximum(np.asarray(joined.sum(1)).ravel(), 1)) @ joined
    moved = vertices.astype(np.float64)
    for _ in range(rounds):
        for weight in (0.5, -0.53):
            moved += weight * (mean @ moved - moved)
    return moved.astype(np.float32)


def decimate(vertices: F32, faces: I64, target: int) -> tuple[F32, I64]:
    """At most about ``target`` faces by quadric errors (Garland and Heckbert 1997), else the input."""
    if len(faces) <= target:
        return vertices, faces
    points, kept = fast_simplification.simplify(
        vertices.astype(np.float32), faces.astype(np.int32), target_count=target, agg=4.0
    )[:2]
    points, kept = compact(points.astype(np.float32), without_flaps(np.asarray(kept, np.int64)))
    return (points, kept) if len(kept) >= 4 and np.isfinite(points).all() else (vertices, faces)


def without_flaps(faces: I64) -> I64:
    """Drop pairs of faces that lie back to back on the same three vertices: collapsing edges leaves a few."""
    _, index, count = np.unique(np.sort(faces, 1), axis=0, return_inverse=True, return_counts=True)
    return faces[count[index.reshape(-1)] == 1]


def outwards(vertices: F32, faces: I64) -> I64:
    """The faces, turned over where the whole encloses a negative volume."""
    return faces[:, ::-1].copy() if signed_volume(vertices, faces) < 0 else faces


def corner_normals(vertices: F32, faces: I64, crease: float) -> F32:
    """[F, 3, 3] unit normals per corner: smooth across edges up to ``crease`` degrees, sharp beyond.

    A corner averages the faces round its vertex that are turned by less than ``crease`` from its own, weighted
    by their angle there (Thuermer and Wuethrich 1998) and area.
    """
    vector = face_vectors(vertices, faces)
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    unit = vector / np.maximum(length, 1e-20)
    corners = vertices[faces].astype(np.float64)
    ahead, back = np.roll(corners, -1, 1) - corners, np.roll(corners, 1, 1) - corners
    norms = np.maximum(np.linalg.norm(ahead, axis=2) * np.linalg.norm(back, axis=2), 1e-20)
    angle = np.arccos(np.clip((ahead * back).sum(2) / norms, -1, 1))
    weight = (angle * length).reshape(-1)
    mine, other = _neighbours(faces.reshape(-1))
    near = (unit[mine // 3] * unit[other // 3]).sum(1) >= np.cos(np.radians(crease))
    mine, other = mine[near], other[near]
    parts = unit[other // 3] * weight[other, None]
    total = np.stack([np.bincount(mine, parts[:, k], faces.size) for k in range(3)], 1)
    size = np.linalg.norm(total, axis=1, keepdims=True)
    total = np.where(size > 1e-20, total / np.maximum(size, 1e-20), np.repeat(unit, 3, 0))
    return total.reshape(-1, 3, 3).astype(np.float32)


def _neighbours(owner: I64) -> tuple[I64, I64]:
    """Pairs of corners (each with itself too) that share a vertex; ``owner`` [C] is each corner's vertex."""
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner)
    start = np.cumsum(counts) - counts
    size = counts[owner[order]]
    first = np.repeat(start[owner[order]], size)
    step = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    return np.repeat(order, size), order[first + step]


def vertex_normals(vertices: F32, faces: I64) -> F32:
    """[V, 3] unit normals, smooth everywhere."""
    corner = corner_normals(vertices, faces, 181.0).reshape(-1, 3)
    normals = np.zeros_like(vertices)
    normals[faces.reshape(-1)] = corner
    return normals
