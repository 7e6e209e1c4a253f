"""Bounding box and bounding radius of an object, from its parts' own geometry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from plugins.procedural.parts import BOX, CONE, ELLIPSOID, PRISM, ROUND_CONE, TORUS, TUBE, Packed

ARC_POINTS = 33


@njit(cache=True, error_model="numpy")
def _hull(kind: int, s: Any, out: Any) -> tuple[int, int, float, float]:
    """The local points or z-circles whose hull, grown by a radius, holds the part tightly.

    Writes rows (x, y, z) and returns (points, circles, first growth, second growth); a circle's row is (radius, -, z).
    """
    if kind == BOX:
        for n in range(8):
            out[n, 0] = s[0] if n & 1 else -s[0]
            out[n, 1] = s[1] if n & 2 else -s[1]
            out[n, 2] = s[2] if n & 4 else -s[2]
        return 8, 0, s[3], s[3]
    if kind == PRISM:
        for n in range(6):
            out[n, 0] = 0.0 if n >= 4 else (s[0] if n & 2 else -s[0])
            out[n, 1] = s[2] if n & 1 else -s[2]
            out[n, 2] = 0.5 * s[1] if n >= 4 else -0.5 * s[1]
        return 6, 0, 0.0, 0.0
    if kind == CONE:
        out[0, 0], out[0, 2], out[1, 0], out[1, 2] = s[0], -s[2], s[1], s[2]
        return 0, 2, s[3], s[3]
    if kind == TUBE:
        out[0, 0], out[0, 2], out[1, 0], out[1, 2] = s[0], -s[2], s[0], s[2]
        return 0, 2, 0.0, 0.0
    if kind == ROUND_CONE:
        out[0, :], out[1, :] = 0.0, 0.0
        out[0, 2], out[1, 2] = -0.5 * s[2], 0.5 * s[2]
        return 2, 0, s[0], s[1]
    if kind == TORUS:
        half = math.atan2(s[2], s[3])
        for n in range(ARC_POINTS):
            angle = half * (2.0 * n / (ARC_POINTS - 1) - 1.0)
            out[n, 0], out[n, 1], out[n, 2] = s[0] * math.cos(angle), s[0] * math.sin(angle), 0.0
        return ARC_POINTS, 0, s[1], s[1]
    out[0, :] = 0.0
    return 1, 0, s[0], s[0]


@njit(cache=True, error_model="numpy")
def _box(kind: Any, size: Any, at: Any, rotation: Any, low: Any, high: Any) -> None:
    rows = np.empty((ARC_POINTS, 3))
    for i in range(kind.shape[0]):
        m, s = rotation[i], size[i]
        points, circles, grow0, grow1 = _hull(kind[i], s, rows)
        for axis in range(3):
            a, b, c = m[3 * axis], m[3 * axis + 1], m[3 * axis + 2]
            if kind[i] == ELLIPSOID:
                points, circles = 0, 0
                reach = math.sqrt((a * s[0]) ** 2 + (b * s[1]) ** 2 + (c * s[2]) ** 2)
                low[axis] = min(low[axis], at[i, axis] - reach)
                high[axis] = max(high[axis], at[i, axis] + reach)
            for n in range(points):
                v = at[i, axis] + a * rows[n, 0] + b * rows[n, 1] + c * rows[n, 2]
                grow = grow0 if n == 0 else grow1
                low[axis], high[axis] = min(low[axis], v - grow), max(high[axis], v + grow)
            for n in range(circles):
                v = at[i, axis] + c * rows[n, 2]
                reach = rows[n, 0] * math.sqrt(max(0.0, 1.0 - c * c)) + grow0
                low[axis], high[axis] = min(low[axis], v - reach), max(high[axis], v + reach)


@njit(cache=True, error_model="numpy")
def _farthest_on_ellipsoid(x: float, y: float, z: float, a: float, b: float, c: float) -> float:
    """Largest distance from the local point to the ellipsoid: a convex maximum over the unit sphere, climbed by fixed
    point from a start in each octant."""
    best = 0.0
    for corner in range(8):
        u, v, w = (1.0 if corner & 1 else -1.0), (1.0 if corner & 2 else -1.0), (1.0 if corner & 4 else -1.0)
        reach = 0.0
        for _ in range(40):
            u, v, w = a * (a * u - x), b * (b * v - y), c * (c * w - z)
            scale = 1.0 / max(math.sqrt(u * u + v * v + w * w), 1e-30)
            u, v, w = u * scale, v * scale, w * scale
            before = reach
            reach = math.sqrt((a * u - x) ** 2 + (b * v - y) ** 2 + (c * w - z) ** 2)
            if reach - before < 1e-7:
                break
        best = max(best, reach)
    return best


@njit(cache=True, error_model="numpy")
def _radius(kind: Any, size: Any, at: Any, rotation: Any, cx: float, cy: float, cz: float) -> float:
    rows = np.empty((ARC_POINTS, 3))
    best = 0.0
    for i in range(kind.shape[0]):
        m, s = rotation[i], size[i]
        px, py, pz = cx - at[i, 0], cy - at[i, 1], cz - at[i, 2]
        x = m[0] * px + m[3] * py + m[6] * pz
        y = m[1] * px + m[4] * py + m[7] * pz
        z = m[2] * px + m[5] * py + m[8] * pz
        if kind[i] == ELLIPSOID:
            best = max(best, _farthest_on_ellipsoid(x, y, z, s[0], s[1], s[2]))
            continue
        points, circles, grow0, grow1 = _hull(kind[i], s, rows)
        for n in range(points):
            far = math.sqrt((rows[n, 0] - x) ** 2 + (rows[n, 1] - y) ** 2 + (rows[n, 2] - z) ** 2)
            best = max(best, far + (grow0 if n == 0 else grow1))
        for n in range(circles):
            across = math.sqrt(x * x + y * y) + rows[n, 0]
            best = max(best, math.sqrt(across * across + (rows[n, 2] - z) ** 2) + grow0)
    return best


def _reals(packed: Packed) -> tuple[NDArray[Any], ...]:
    return packed["kind"], *(packed[name].astype(np.float64) for name in ("size", "at", "rotation"))


def bounding_box(packed: Packed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(low [3], high [3]) of the union; tight but for a torus's arc, sampled at 33 points."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    kind, size, at, rotation = _reals(packed)
    _box(kind, size, at, rotation, low, high)
    return low, high


def bounding_radius(packed: Packed, centre: NDArray[np.float64]) -> float:
    """Distance from `centre` [3] to the farthest point of the union."""
    kind, size, at, rotation = _reals(packed)
    return float(_radius(kind, size, at, rotation, float(centre[0]), float(centre[1]), float(centre[2])))
