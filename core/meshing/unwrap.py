"""UV charts by xatlas, and vertices split where a chart or a crease needs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xatlas
from numpy.typing import NDArray

from core.meshing.cleanup import corner_normals

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass
class Unwrapped:
    """Triangles with one position, normal and texture place per vertex.

    Attributes:
        vertices: [V, 3] world units.  normals: [V, 3] unit.  uv: [V, 2] in [0, 1], origin at the lower left.
        faces: [F, 3].
    """

    vertices: F32
    normals: F32
    uv: F32
    faces: I64


def unwrap(vertices: F32, faces: I64, texture: int, padding: int, crease: float) -> Unwrapped:
    """Charts packed for a ``texture`` pixels wide atlas with ``padding`` pixels between them.

    Args:
        vertices: [V, 3].  faces: [F, 3].
        crease: degrees; the surface looks sharp across edges turned by more.
    """
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = texture, padding, True
    atlas.generate(xatlas.ChartOptions(), pack)
    origin, index, uv = atlas[0]
    index = index.astype(np.int64)
    normals = corner_normals(vertices, faces, crease).reshape(-1, 3)
    keys = np.concatenate([index.reshape(-1, 1), np.round(normals * 512).astype(np.int64)], 1)
    _, first, split = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    chart = index.reshape(-1)[first]
    return Unwrapped(
        vertices[origin[chart]],
        normals[first],
        np.clip(uv[chart], 0, 1).astype(np.float32),
        split.reshape(-1, 3),
    )
