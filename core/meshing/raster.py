"""Which face a pixel sees and where on it, for arrays: the mesh kernel in texture space, and lookups beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.kernels.mesh_raster import rasterise as kernel

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def rasterise(xy: F32, faces: I64, height: int, width: int, near: F32 | None = None) -> tuple[I32, F32, F32]:
    """The face in front at each pixel centre.

    Args:
        xy: [V, 2] in pixels, x to the right, y downwards; pixel (0, 0) has its centre at (0.5, 0.5).
        faces: [F, 3].
        near: [V] inverse depth > 0, which also makes the weights perspective-correct; None for a flat drawing. A face
            with a vertex that has none is left out.

    Returns:
        ``face`` [H, W] (-1 where there is none), ``bary`` [H, W, 3] weights of its corners, ``inverse depth`` [H, W].
    """
    depth = np.ones(len(xy)) if near is None else 1 / np.where(near > 0, near, np.nan).astype(np.float64)
    points = np.concatenate([xy * depth[:, None], depth[:, None]], 1)
    with torch.no_grad():
        seen = kernel(torch.from_numpy(points)[None], torch.from_numpy(_whole(faces)), height, width, near=1e-9)
    face, bary, far = (t[0].numpy() for t in seen)
    hit = face >= 0
    inverse = np.where(hit, 1 / np.where(hit, far, 1), 0)
    return face.astype(np.int32), bary.astype(np.float32), inverse.astype(np.float32)


def _whole(faces: Any) -> I64:
    return np.ascontiguousarray(faces, np.int64)


def blend(values: F32, faces: I64, face: I32, bary: F32) -> F32:
    """``values`` [V, C] at pixels: ``face`` [N] >= 0 and ``bary`` [N, 3] to [N, C]."""
    corners = faces[face]
    mixed = values[corners[:, 0]] * bary[:, :1]
    mixed += values[corners[:, 1]] * bary[:, 1:2]
    mixed += values[corners[:, 2]] * bary[:, 2:]
    return mixed


def bilinear(texture: F32, uv: F32) -> F32:
    """``texture`` [T, T, C] (row 0 at v = 1) at ``uv`` [N, 2], clamped at the border: [N, C]."""
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    above = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    below = texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx
    return (above * (1 - fy) + below * fy).astype(np.float32)
