"""Where a ray meets the parts of an object, and the normal there.

A ray meets a union where it first meets any one part, so each part is cast alone in its own frame. A slab test against
its local box bounds the ray; balls, ellipsoids, tubes and sharp boxes are solved in closed form and every other shape
is sphere traced (Hart, "Sphere tracing", 1996). A convex body's distance is a convex function along a ray, hence the
secant through the last two samples never overshoots and replaces the plain step, and a growing distance is a miss.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from plugins.procedural.parts import BOX, ELLIPSOID, SPHERE, TORUS, TUBE
from plugins.procedural.sdf import part_distance

STEPS = 128
TOLERANCE = 1e-5
# No "nnan" or "ninf": infinity stands for a miss.
FAST = njit(cache=True, fastmath={"contract", "reassoc", "arcp"}, error_model="numpy")


@FAST
def _quadratic(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, a: float, b: float, c: float
) -> float:
    """First crossing of an ellipsoid, or inf."""
    ox, oy, oz, dx, dy, dz = ox / a, oy / b, oz / c, dx / a, dy / b, dz / c
    dd = dx * dx + dy * dy + dz * dz
    t = -(ox * dx + oy * dy + oz * dz) / dd
    px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
    left = 1.0 - (px * px + py * py + pz * pz)
    return t - math.sqrt(left / dd) if left > 0.0 else math.inf


@FAST
def _pipe(
    s: Any, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, enter: float, leave: float
) -> float:
    """First crossing of a tube within its local box, or inf: the outer wall, a rim, or through the hole the inner."""
    a, b = max(dx * dx + dy * dy, 1e-18), ox * dx + oy * dy
    middle = -b / a
    px, py = ox + middle * dx, oy + middle * dy
    gap = px * px + py * py
    left = s[0] * s[0] - gap
    if left <= 0.0:
        return math.inf
    reach = math.sqrt(left / a)
    enter, leave = max(enter, middle - reach), min(leave, middle + reach)
    if enter >= leave:
        return math.inf
    inner = s[0] - s[1]
    px, py = ox + enter * dx, oy + enter * dy
    if px * px + py * py >= inner * inner:
        return enter
    t = middle + math.sqrt(max(0.0, inner * inner - gap) / a)
    return t if t < leave else math.inf


@FAST
def _march(
    kind: int,
    size: Any,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    enter: float,
    leave: float,
) -> float:
    """First zero of one part's distance along o + t d for t in [enter, leave], or inf."""
    per_unit = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    convex = kind != TORUS
    t = enter
    d = part_distance(kind, size, ox + t * dx, oy + t * dy, oz + t * dz)
    step = d * per_unit
    for _ in range(STEPS):
        if d < TOLERANCE:
            return t
        t += step
        if t > leave:
            return math.inf
        before = d
        d = part_distance(kind, size, ox + t * dx, oy + t * dy, oz + t * dz)
        if convex:
            if d >= before:
                return math.inf
            step = max(d * per_unit, step * d / (before - d))
        else:
            step = d * per_unit
    return t if d < 10.0 * TOLERANCE else math.inf


@FAST
def _slab(o: float, d: float, half: float, enter: float, leave: float) -> tuple[float, float]:
    inverse = 1.0 / (d if abs(d) > 1e-12 else 1e-12)
    a, b = (-half - o) * inverse, (half - o) * inverse
    return max(enter, min(a, b)), min(leave, max(a, b))


@FAST
def cast(
    kind: Any, size: Any, half: Any, frames: Any, alive: Any, count: int, x: float, y: float
) -> tuple[float, int]:
    """(depth, part) of the first hit of the camera ray (x, y, -1) among `alive[:count]`; (inf, -1) for none."""
    best, hit = math.inf, -1
    for n in range(count):
        i = alive[n]
        f = frames[i]
        ox, oy, oz = f[0], f[1], f[2]
        dx, dy, dz = x * f[3] + y * f[6] - f[9], x * f[4] + y * f[7] - f[10], x * f[5] + y * f[8] - f[11]
        enter, leave = _slab(ox, dx, half[i, 0], 1e-3, best)
        enter, leave = _slab(oy, dy, half[i, 1], enter, leave)
        enter, leave = _slab(oz, dz, half[i, 2], enter, leave)
        if enter >= leave:
            continue
        k = kind[i]
        if k == SPHERE or k == ELLIPSOID:
            t = _quadratic(ox, oy, oz, dx, dy, dz, size[i, 0], size[i, 1], size[i, 2])
        elif k == BOX and size[i, 3] == 0.0:
            t = enter
        elif k == TUBE:
            t = _pipe(size[i], ox, oy, oz, dx, dy, dz, enter, leave)
        else:
            t = _march(k, size[i], ox, oy, oz, dx, dy, dz, enter, leave)
        if t < best:
            best, hit = t, i
    return best, hit


@njit(cache=True, error_model="numpy")
def surface_normal(kind: int, s: Any, m: Any, f: Any, t: float, x: float, y: float, out: Any) -> None:
    """World unit normal of a part at depth t: closed form for quadrics, else a central difference of its distance."""
    px = f[0] + t * (x * f[3] + y * f[6] - f[9])
    py = f[1] + t * (x * f[4] + y * f[7] - f[10])
    pz = f[2] + t * (x * f[5] + y * f[8] - f[11])
    if kind == SPHERE or kind == ELLIPSOID:
        gx, gy, gz = px / (s[0] * s[0]), py / (s[1] * s[1]), pz / (s[2] * s[2])
    else:
        h = 1e-5
        gx = part_distance(kind, s, px + h, py, pz) - part_distance(kind, s, px - h, py, pz)
        gy = part_distance(kind, s, px, py + h, pz) - part_distance(kind, s, px, py - h, pz)
        gz = part_distance(kind, s, px, py, pz + h) - part_distance(kind, s, px, py, pz - h)
    scale = 1.0 / max(math.sqrt(gx * gx + gy * gy + gz * gz), 1e-30)
    out[0] = scale * (m[0] * gx + m[1] * gy + m[2] * gz)
    out[1] = scale * (m[3] * gx + m[4] * gy + m[5] * gz)
    out[2] = scale * (m[6] * gx + m[7] * gy + m[8] * gz)
