"""The hash encoding and its first and second derivatives, compiled for the CPU.

A block of points is planned first (table rows and interpolation weights of its 8 corners, which vectorises), then
the table is read or written. Block and level tables stay in the second-level cache. Writes to a level belong to one
thread and happen in the order of the points, so results are bit-identical whatever the number of threads.

Shapes: points, v [3, N]; table [L, T, F]; res [L] float64; out, gout [N, L * F]. ``one`` carries
the float type, ``lanes`` is a tuple of length F, by which the compiler knows F and unrolls.
"""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np
from numba import njit, prange

BLOCK = 2048
P1, P2 = np.uint32(2_654_435_761), np.uint32(805_459_861)
U = np.uint32


@njit(cache=True, error_model="numpy")
def _axis(p, res):
    """Cell and place in the cell along one axis; a NaN gets cell 0 and stays NaN in the place.

    In float64 even for float32 points: at 512 cells a float32 product would round the place to 5 digits.
    """
    q = np.float64(p)
    q = 0.0 if q < 0.0 else q
    q = 1.0 if q > 1.0 else q
    q = q * res
    cell = np.floor(q)
    cell = cell if cell < res - 1.0 else res - 1.0
    cell = cell if cell > 0.0 else 0.0
    return U(np.int32(cell)), q - cell


@njit(cache=True, error_model="numpy")
def _cells(points, lo, m, res, rows, idx, frac):
    """Rows of the 8 corners (corner k = bits zyx) into idx [8, m], places in the cell into frac [3, m]."""
    r = np.int64(res)
    side, mask = U(r + 1), U(rows - 1)
    if (r + 1) ** 3 <= rows:
        for j in range(m):
            x, frac[0, j] = _axis(points[0, lo + j], res)
            y, frac[1, j] = _axis(points[1, lo + j], res)
            z, frac[2, j] = _axis(points[2, lo + j], res)
            idx[0, j] = x + side * (y + side * z)
        for k in range(1, 8):
            step = U(k & 1) + side * (U(k >> 1 & 1) + side * U(k >> 2))
            for j in range(m):
                idx[k, j] = idx[0, j] + step
        return
    for j in range(m):
        x, frac[0, j] = _axis(points[0, lo + j], res)
        y, frac[1, j] = _axis(points[1, lo + j], res)
        z, frac[2, j] = _axis(points[2, lo + j], res)
        x1, y0, z0 = x + U(1), y * P1, z * P2
        y1, z1 = y0 + P1, z0 + P2
        idx[0, j], idx[1, j] = (x ^ y0 ^ z0) & mask, (x1 ^ y0 ^ z0) & mask
        idx[2, j], idx[3, j] = (x ^ y1 ^ z0) & mask, (x1 ^ y1 ^ z0) & mask
        idx[4, j], idx[5, j] = (x ^ y0 ^ z1) & mask, (x1 ^ y0 ^ z1) & mask
        idx[6, j], idx[7, j] = (x ^ y1 ^ z1) & mask, (x1 ^ y1 ^ z1) & mask


@njit(cache=True, error_model="numpy")
def _slopes(points, lo, m, res, one, slope):
    """d place in the cell / d point into slope [3, m]: res, and 0 outside the box where points are clamped."""
    zero = one - one
    for d in range(3):
        for j in range(m):
            p = points[d, lo + j]
            slope[d, j] = res if p >= zero and p <= one else zero


@njit(cache=True, error_model="numpy")
def _times(slope, v, lo, m, along):
    """slope [3, m] times v [3, N] at lo into along [3, m]; it may be slope itself."""
    for d in range(3):
        for j in range(m):
            along[d, j] = slope[d, j] * v[d, lo + j]


@njit(cache=True, error_model="numpy")
def _tangent_weights(frac, slope, m, one, weight):
    """Change of the 8 trilinear weights along slope, into weight [8, m]."""
    for j in range(m):
        u, v, w = frac[0, j], frac[1, j], frac[2, j]
        du, dv, dw = slope[0, j], slope[1, j], slope[2, j]
        a, b, c = one - u, one - v, one - w
        bc, vc, bw, vw = b * c, v * c, b * w, v * w
        dbc, dvc = -dv * c - b * dw, dv * c - v * dw
        dbw, dvw = -dv * w + b * dw, dv * w + v * dw
        weight[0, j], weight[1, j] = a * dbc - du * bc, u * dbc + du * bc
        weight[2, j], weight[3, j] = a * dvc - du * vc, u * dvc + du * vc
        weight[4, j], weight[5, j] = a * dbw - du * bw, u * dbw + du * bw
        weight[6, j], weight[7, j] = a * dvw - du * vw, u * dvw + du * vw


@njit(cache=True, error_model="numpy")
def _plan(points, v, tangent, lo, m, res, rows, one, idx, frac, weight):
    """Rows and places of one block in one level; with ``tangent`` also its weights' change along v [3, N]."""
    _cells(points, lo, m, res, rows, idx, frac)
    if tangent:
        slope = np.empty((3, BLOCK), points.dtype)
        _slopes(points, lo, m, res, one, slope)
        _times(slope, v, lo, m, slope)
        _tangent_weights(frac, slope, m, one, weight)


@njit(cache=True, error_model="numpy")
def _corners(tangent, frac, weight, one, j):
    """The 8 weights of point j: planned ones, or the trilinear ones, computed here to spare the cache."""
    if tangent:
        low = (weight[0, j], weight[1, j], weight[2, j], weight[3, j])
        return low + (weight[4, j], weight[5, j], weight[6, j], weight[7, j])
    u, v, w = frac[0, j], frac[1, j], frac[2, j]
    a, b, c = one - u, one - v, one - w
    bc, vc, bw, vw = b * c, v * c, b * w, v * w
    return a * bc, u * bc, a * vc, u * vc, a * bw, u * bw, a * vw, u * vw


@njit(cache=True, error_model="numpy")
def _encode_block(points, v, tangent, table, res, one, lanes, lo, m, out):
    """All levels of one block of points."""
    features = len(lanes)
    levels, rows, _ = table.shape
    idx, frac = np.empty((8, BLOCK), np.uint32), np.empty((3, BLOCK), points.dtype)
    weight = np.empty((8, BLOCK), points.dtype)
    for level in range(levels):
        _plan(points, v, tangent, lo, m, res[level], rows, one, idx, frac, weight)
        t = table[level]
        for j in range(m):
            i0, i1, i2, i3 = idx[0, j], idx[1, j], idx[2, j], idx[3, j]
            i4, i5, i6, i7 = idx[4, j], idx[5, j], idx[6, j], idx[7, j]
            w0, w1, w2, w3, w4, w5, w6, w7 = _corners(tangent, frac, weight, one, j)
            for f in range(features):
                low = (w0 * t[i0, f] + w1 * t[i1, f]) + (w2 * t[i2, f] + w3 * t[i3, f])
                high = (w4 * t[i4, f] + w5 * t[i5, f]) + (w6 * t[i6, f] + w7 * t[i7, f])
                out[lo + j, level * features + f] = low + high


@njit(parallel=True, cache=True, error_model="numpy")
def encode(points, v, tangent, table, res, one, lanes, out):
    """Features into out, or with ``tangent`` their change along v [3, N] (else v is not read)."""
    n = points.shape[1]
    for block in prange((n + BLOCK - 1) // BLOCK):
        lo = block * BLOCK
        _encode_block(points, v, tangent, table, res, one, lanes, lo, min(n - lo, BLOCK), out)


@njit(cache=True, error_model="numpy")
def _scatter_level(points, v, tangent, gout, res, level, one, lanes, g):
    """One level's share of ``scatter``, into g [T, F]."""
    n, features = points.shape[1], len(lanes)
    idx, frac = np.empty((8, BLOCK), np.uint32), np.empty((3, BLOCK), points.dtype)
    weight = np.empty((8, BLOCK), points.dtype)
    g[:] = one - one
    for lo in range(0, n, BLOCK):
        m = min(n - lo, BLOCK)
        _plan(points, v, tangent, lo, m, res[level], g.shape[0], one, idx, frac, weight)
        for j in range(m):
            i0, i1, i2, i3 = idx[0, j], idx[1, j], idx[2, j], idx[3, j]
            i4, i5, i6, i7 = idx[4, j], idx[5, j], idx[6, j], idx[7, j]
            w0, w1, w2, w3, w4, w5, w6, w7 = _corners(tangent, frac, weight, one, j)
            for f in range(features):
                q = gout[lo + j, level * features + f]
                g[i0, f] += w0 * q
                g[i1, f] += w1 * q
                g[i2, f] += w2 * q
                g[i3, f] += w3 * q
                g[i4, f] += w4 * q
                g[i5, f] += w5 * q
                g[i6, f] += w6 * q
                g[i7, f] += w7 * q


@njit(parallel=True, cache=True, error_model="numpy")
def scatter(points, v, tangent, gout, res, order, one, lanes, grad):
    """Gradient of the table into grad [L, T, F]: gout weighted as in ``encode``, added to the 8 corners' rows.

    ``order`` [L] deals the levels out to the threads, cheap ones and dear ones alike.
    """
    for turn in prange(len(order)):
        level = order[turn]
        _scatter_level(points, v, tangent, gout, res, level, one, lanes, grad[level])


@njit(cache=True, error_model="numpy")
def _dots(t, gout, lo, m, column, idx, lanes, dot):
    """Each corner's features in t [T, F] times gout, into dot [8, m]."""
    for j in range(m):
        i0, i1, i2, i3 = idx[0, j], idx[1, j], idx[2, j], idx[3, j]
        i4, i5, i6, i7 = idx[4, j], idx[5, j], idx[6, j], idx[7, j]
        q = gout[lo + j, column]
        d0, d1, d2, d3 = t[i0, 0] * q, t[i1, 0] * q, t[i2, 0] * q, t[i3, 0] * q
        d4, d5, d6, d7 = t[i4, 0] * q, t[i5, 0] * q, t[i6, 0] * q, t[i7, 0] * q
        for f in range(1, len(lanes)):
            q = gout[lo + j, column + f]
            d0, d1, d2, d3 = d0 + t[i0, f] * q, d1 + t[i1, f] * q, d2 + t[i2, f] * q, d3 + t[i3, f] * q
            d4, d5, d6, d7 = d4 + t[i4, f] * q, d5 + t[i5, f] * q, d6 + t[i6, f] * q, d7 + t[i7, f] * q
        dot[0, j], dot[1, j], dot[2, j], dot[3, j] = d0, d1, d2, d3
        dot[4, j], dot[5, j], dot[6, j], dot[7, j] = d4, d5, d6, d7


@njit(cache=True, error_model="numpy")
def _add_gradient(frac, slope, dot, m, one, total):
    """Add one level's gradient in the points to total [3, m]."""
    for j in range(m):
        u, v, w = frac[0, j], frac[1, j], frac[2, j]
        a, b, c = one - u, one - v, one - w
        d0, d1, d2, d3 = dot[0, j], dot[1, j], dot[2, j], dot[3, j]
        d4, d5, d6, d7 = dot[4, j], dot[5, j], dot[6, j], dot[7, j]
        x = ((d1 - d0) * b + (d3 - d2) * v) * c + ((d5 - d4) * b + (d7 - d6) * v) * w
        y = ((d2 - d0) * a + (d3 - d1) * u) * c + ((d6 - d4) * a + (d7 - d5) * u) * w
        z = ((d4 - d0) * a + (d5 - d1) * u) * b + ((d6 - d2) * a + (d7 - d3) * u) * v
        total[0, j] += slope[0, j] * x
        total[1, j] += slope[1, j] * y
        total[2, j] += slope[2, j] * z


@njit(cache=True, error_model="numpy")
def _add_hessian(frac, slope, along, dot, m, one, total):
    """Add one level's Hessian times ``along`` to total [3, m].

    The interpolation is linear along each axis, so only the mixed second derivatives are not zero.
    """
    for j in range(m):
        u, v, w = frac[0, j], frac[1, j], frac[2, j]
        d0, d1, d2, d3 = dot[0, j], dot[1, j], dot[2, j], dot[3, j]
        d4, d5, d6, d7 = dot[4, j], dot[5, j], dot[6, j], dot[7, j]
        xy = (d3 - d2 - d1 + d0) * (one - w) + (d7 - d6 - d5 + d4) * w
        xz = (d5 - d4 - d1 + d0) * (one - v) + (d7 - d6 - d3 + d2) * v
        yz = (d6 - d4 - d2 + d0) * (one - u) + (d7 - d5 - d3 + d1) * u
        total[0, j] += slope[0, j] * (xy * along[1, j] + xz * along[2, j])
        total[1, j] += slope[1, j] * (xy * along[0, j] + yz * along[2, j])
        total[2, j] += slope[2, j] * (xz * along[0, j] + yz * along[1, j])


@njit(cache=True, error_model="numpy")
def _gradient_block(points, v, hessian, table, gout, res, one, lanes, lo, m, grad):
    """All levels of one block of points."""
    levels, rows, features = table.shape
    idx, dot = np.empty((8, BLOCK), np.uint32), np.empty((8, BLOCK), points.dtype)
    frac, slope = np.empty((3, BLOCK), points.dtype), np.empty((3, BLOCK), points.dtype)
    along, total = np.empty((3, BLOCK), points.dtype), np.zeros((3, BLOCK), points.dtype)
    for level in range(levels):
        _cells(points, lo, m, res[level], rows, idx, frac)
        _slopes(points, lo, m, res[level], one, slope)
        _dots(table[level], gout, lo, m, level * features, idx, lanes, dot)
        if hessian:
            _times(slope, v, lo, m, along)
            _add_hessian(frac, slope, along, dot, m, one, total)
        else:
            _add_gradient(frac, slope, dot, m, one, total)
    for d in range(3):  # a slice would make Numba compile its shape error for a second
        for j in range(m):
            grad[d, lo + j] = total[d, j]


@njit(parallel=True, cache=True, error_model="numpy")
def point_gradient(points, v, hessian, table, gout, res, one, lanes, grad):
    """Gradient of sum(out * gout) in the points into grad [3, N]; with ``hessian``, its change along v [3, N]."""
    n = points.shape[1]
    for block in prange((n + BLOCK - 1) // BLOCK):
        lo = block * BLOCK
        _gradient_block(points, v, hessian, table, gout, res, one, lanes, lo, min(n - lo, BLOCK), grad)
