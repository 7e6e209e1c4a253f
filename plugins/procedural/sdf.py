"""Compiled signed distances of every primitive and of their union.

Each primitive's distance is the exact Euclidean one, inside and out. Their hard union (the minimum) is exact outside;
inside, where parts overlap, its magnitude is a lower bound of the true depth, with the right sign everywhere.
Formulas follow Quilez, "Distance functions" (iquilezles.org/articles/distfunctions); the ellipsoid solves Eberly's
equation ("Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid", 2013).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from plugins.procedural.parts import BOX, CONE, ELLIPSOID, PRISM, ROUND_CONE, SPHERE, TORUS, TUBE, Packed

F64 = NDArray[np.float64]


@njit(cache=True, error_model="numpy")
def _box(x: float, y: float, z: float, a: float, b: float, c: float, r: float) -> float:
    qx, qy, qz = abs(x) - a, abs(y) - b, abs(z) - c
    mx, my, mz = max(qx, 0.0), max(qy, 0.0), max(qz, 0.0)
    return math.sqrt(mx * mx + my * my + mz * mz) + min(max(qx, max(qy, qz)), 0.0) - r


@njit(cache=True, error_model="numpy")
def _cone(x: float, y: float, z: float, low: float, high: float, half: float, r: float) -> float:
    """Capped cone: radius `low` at z = -half, `high` at z = +half, grown by r."""
    q = math.sqrt(x * x + y * y)
    cap_x = q - min(q, low if z < 0.0 else high)
    cap_z = abs(z) - half
    slope = high - low
    rise = 2.0 * half
    s = ((high - q) * slope + (half - z) * rise) / (slope * slope + rise * rise)
    s = min(max(s, 0.0), 1.0)
    side_x = q - high + slope * s
    side_z = z - half + rise * s
    sign = -1.0 if (side_x < 0.0 and cap_z < 0.0) else 1.0
    return sign * math.sqrt(min(cap_x * cap_x + cap_z * cap_z, side_x * side_x + side_z * side_z)) - r


@njit(cache=True, error_model="numpy")
def _round_cone(x: float, y: float, z: float, ra: float, rb: float, length: float) -> float:
    q = math.sqrt(x * x + y * y)
    h = z + 0.5 * length
    sine = (ra - rb) / length
    cosine = math.sqrt(1.0 - sine * sine)
    k = cosine * h - sine * q
    if k < 0.0:
        return math.sqrt(q * q + h * h) - ra
    if k > cosine * length:
        return math.sqrt(q * q + (h - length) * (h - length)) - rb
    return q * cosine + h * sine - ra


@njit(cache=True, error_model="numpy")
def _torus(x: float, y: float, z: float, ring: float, radius: float, sine: float, cosine: float) -> float:
    """Ring in xy; the arc's half angle is given by its sine and cosine, centred on +x."""
    w = abs(y)
    # Past the arc's end the nearest ring point is the end itself.
    near = x * cosine + w * sine if cosine * w > sine * x else math.sqrt(x * x + y * y)
    return math.sqrt(max(x * x + y * y + z * z + ring * ring - 2.0 * ring * near, 0.0)) - radius


@njit(cache=True, error_model="numpy")
def _tube(x: float, y: float, z: float, outer: float, wall: float, half: float) -> float:
    qx = abs(math.sqrt(x * x + y * y) - outer + 0.5 * wall) - 0.5 * wall
    qz = abs(z) - half
    mx, mz = max(qx, 0.0), max(qz, 0.0)
    return math.sqrt(mx * mx + mz * mz) + min(max(qx, qz), 0.0)


@njit(cache=True, error_model="numpy")
def _prism(x: float, y: float, z: float, half_base: float, height: float, half_length: float) -> float:
    px, pz = abs(x), 0.5 * height - z
    s = min(max((px * half_base + pz * height) / (half_base * half_base + height * height), 0.0), 1.0)
    ax, az = px - half_base * s, pz - height * s
    s = min(max(px / half_base, 0.0), 1.0)
    bx, bz = px - half_base * s, pz - height
    inside = pz * half_base - px * height > 0.0 and pz < height
    flat = math.sqrt(min(ax * ax + az * az, bx * bx + bz * bz))
    flat = -flat if inside else flat
    deep = abs(y) - half_length
    mx, my = max(flat, 0.0), max(deep, 0.0)
    return math.sqrt(mx * mx + my * my) + min(max(flat, deep), 0.0)


@njit(cache=True, error_model="numpy")
def _ellipsoid(x: float, y: float, z: float, a: float, b: float, c: float) -> float:
    """Exact signed distance. The nearest point is r_i^2 y_i / (t + r_i^2); with u = t + r_min^2 nothing cancels.

    Newton on 1/|s(u)| - 1, concave and rising (Conn, Gould & Toint, "Trust-Region Methods", lemma 7.3.1), climbs to
    the root from the left without overshooting, a handful of steps.
    """
    small = min(a, min(b, c))
    # Off the symmetry planes by a hair: keeps the root regular, and moves the distance by less than 1e-11.
    hair = 1e-12 * small
    px, py, pz = max(abs(x), hair), max(abs(y), hair), max(abs(z), hair)
    ea, eb, ec = a * a - small * small, b * b - small * small, c * c - small * small
    wa, wb, wc = a * a * px * px, b * b * py * py, c * c * pz * pz
    u = small * (px if a == small else (py if b == small else pz))
    for _ in range(60):
        ia, ib, ic = 1.0 / (u + ea), 1.0 / (u + eb), 1.0 / (u + ec)
        ga, gb, gc = wa * ia * ia, wb * ib * ib, wc * ic * ic
        g = ga + gb + gc
        step = g * (math.sqrt(g) - 1.0) / (ga * ia + gb * ib + gc * ic)
        u += step
        if abs(step) <= 1e-14 * u:
            break
    fa, fb, fc = px / (u + ea), py / (u + eb), pz / (u + ec)
    return (u - small * small) * math.sqrt(fa * fa + fb * fb + fc * fc)


@njit(cache=True, error_model="numpy")
def part_distance(kind: int, size: Any, x: float, y: float, z: float) -> float:
    """Signed distance of one primitive at a point in its local frame; size: its packed row [4]."""
    if kind == ROUND_CONE:
        return _round_cone(x, y, z, size[0], size[1], size[2])
    if kind == BOX:
        return _box(x, y, z, size[0], size[1], size[2], size[3])
    if kind == CONE:
        return _cone(x, y, z, size[0], size[1], size[2], size[3])
    if kind == SPHERE:
        return math.sqrt(x * x + y * y + z * z) - size[0]
    if kind == ELLIPSOID:
        return _ellipsoid(x, y, z, size[0], size[1], size[2])
    if kind == TORUS:
        return _torus(x, y, z, size[0], size[1], size[2], size[3])
    if kind == TUBE:
        return _tube(x, y, z, size[0], size[1], size[2])
    if kind == PRISM:
        return _prism(x, y, z, size[0], size[1], size[2])
    return math.inf


@njit(cache=True, error_model="numpy")
def union_distance(
    kind: Any,
    size: Any,
    at: Any,
    rotation: Any,
    bound: Any,
    low: int,
    high: int,
    x: float,
    y: float,
    z: float,
) -> tuple[float, int]:
    """(distance, index of the nearest part) over parts low..high-1 at one object-space point."""
    best, nearest = math.inf, low
    for i in range(low, high):
        px, py, pz = x - at[i, 0], y - at[i, 1], z - at[i, 2]
        # A part lies within its bounding sphere, so it cannot come nearer than the sphere does.
        reach = best + bound[i]
        if best == math.inf or (reach > 0.0 and px * px + py * py + pz * pz < reach * reach):
            m = rotation[i]
            lx = m[0] * px + m[3] * py + m[6] * pz
            ly = m[1] * px + m[4] * py + m[7] * pz
            lz = m[2] * px + m[5] * py + m[8] * pz
            d = part_distance(kind[i], size[i], lx, ly, lz)
            if d < best:
                best, nearest = d, i
    return best, nearest


@njit(cache=True, error_model="numpy", parallel=True)
def _distances(
    kind: Any, size: Any, at: Any, rotation: Any, bound: Any, points: Any, out: Any, nearest: Any
) -> None:
    for n in prange(points.shape[0]):
        d, i = union_distance(
            kind, size, at, rotation, bound, 0, kind.shape[0], points[n, 0], points[n, 1], points[n, 2]
        )
        out[n] = d
        nearest[n] = i


def kernel_arrays(packed: Packed) -> tuple[NDArray[np.int32], F64, F64, F64, F64]:
    """(kind, size, at, rotation, bound), reals widened to float64, which the kernels compute in."""
    wide = [packed[name].astype(np.float64) for name in ("size", "at", "rotation", "bound")]
    return packed["kind"], wide[0], wide[1], wide[2], wide[3]


def distance_and_part(packed: Packed, points: NDArray[Any]) -> tuple[F64, NDArray[np.int32]]:
    """Signed distance [N] and index of the nearest part [N] at object-space points [N,3]."""
    points = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
    out, nearest = np.empty(len(points)), np.empty(len(points), np.int32)
    _distances(*kernel_arrays(packed), points, out, nearest)
    return out, nearest


def signed_distance(parts_arrays: Packed, points: NDArray[Any]) -> F64:
    """Signed distance [N] (float64, object units, negative inside) of the union at points [N,3].

    Exact outside and for a lone part; inside overlapping parts a lower bound in magnitude.
    """
    return distance_and_part(parts_arrays, points)[0]


def gradient(parts_arrays: Packed, points: NDArray[Any], step: float = 1e-4) -> F64:
    """Unit gradient [N,3] of the distance by central differences; the outward normal on the surface."""
    points = np.asarray(points, np.float64).reshape(-1, 3)
    offsets = np.concatenate([np.eye(3), -np.eye(3)]) * step
    values = signed_distance(parts_arrays, (points[None] + offsets[:, None]).reshape(-1, 3)).reshape(6, -1)
    slope = (values[:3] - values[3:]).T
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)


@njit(cache=True, error_model="numpy", parallel=True)
def _grid(
    kind: Any, size: Any, at: Any, rotation: Any, bound: Any, half: float, cell: float, block: int, out: Any
) -> None:
    n = out.shape[0]
    blocks = (n + block - 1) // block
    radius = 0.5 * math.sqrt(3.0) * block * cell
    for job in prange(blocks * blocks * blocks):
        bi, bj, bk = job // (blocks * blocks), (job // blocks) % blocks, job % blocks
        middle = 0.5 * (block - 1) * cell - half
        cx, cy, cz = bi * block * cell + middle, bj * block * cell + middle, bk * block * cell + middle
        centre, _ = union_distance(kind, size, at, rotation, bound, 0, kind.shape[0], cx, cy, cz)
        far = abs(centre) > radius
        for i in range(bi * block, min(n, (bi + 1) * block)):
            for j in range(bj * block, min(n, (bj + 1) * block)):
                for k in range(bk * block, min(n, (bk + 1) * block)):
                    if far:
                        out[i, j, k] = centre
                    else:
                        x, y, z = i * cell - half, j * cell - half, k * cell - half
                        out[i, j, k], _ = union_distance(
                            kind, size, at, rotation, bound, 0, kind.shape[0], x, y, z
                        )


def distance_grid(packed: Packed, resolution: int, half: float) -> NDArray[np.float32]:
    """Distances on the grid [resolution]^3 spanning [-half, half]^3, indexed [x, y, z].

    Exact near the surface; an 8^3 block that the surface cannot reach is filled with its centre's value, right in sign.
    """
    out = np.empty((resolution,) * 3, np.float32)
    _grid(*kernel_arrays(packed), half, 2.0 * half / (resolution - 1), 8, out)
    return out
