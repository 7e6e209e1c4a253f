"""A compiled triangle rasteriser: which face a pixel sees and where on it. Used in texture space and in views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@njit(cache=True, error_model="numpy")
def _fill(xy: Any, near: Any, faces: Any, face: Any, bary: Any, best: Any) -> None:
    height, width = face.shape
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        if near[i] <= 0.0 or near[j] <= 0.0 or near[k] <= 0.0:
            continue
        x0, y0, x1, y1, x2, y2 = xy[i, 0], xy[i, 1], xy[j, 0], xy[j, 1], xy[k, 0], xy[k, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0:
            continue
        left = max(int(math.ceil(min(x0, x1, x2) - 0.5)), 0)
        right = min(int(math.floor(max(x0, x1, x2) - 0.5)), width - 1)
        top = max(int(math.ceil(min(y0, y1, y2) - 0.5)), 0)
        bottom = min(int(math.floor(max(y0, y1, y2) - 0.5)), height - 1)
        for row in range(top, bottom + 1):
            y = row + 0.5
            for col in range(left, right + 1):
                x = col + 0.5
                a = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                b = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                c = 1.0 - a - b
                if a < -1e-9 or b < -1e-9 or c < -1e-9:
                    continue
                depth = a * near[i] + b * near[j] + c * near[k]
                if depth > best[row, col]:
                    best[row, col] = depth
                    face[row, col] = f
                    bary[row, col, 0] = a * near[i] / depth
                    bary[row, col, 1] = b * near[j] / depth
                    bary[row, col, 2] = c * near[k] / depth


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
    face = np.full((height, width), -1, np.int32)
    bary = np.zeros((height, width, 3), np.float32)
    best = np.zeros((height, width))
    closeness = np.ones(len(xy)) if near is None else near.astype(np.float64)
    _fill(xy.astype(np.float64), closeness, faces.astype(np.int64), face, bary, best)
    return face, bary, best.astype(np.float32)


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
