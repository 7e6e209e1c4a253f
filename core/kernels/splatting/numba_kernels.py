"""The compiled loops of splatting: blending and its gradient, tile by tile.

A tile's Gaussians come front to back; of each, the rows that its ellipse meets between the tile's sides are worked on
as one run of pixels, in loops over few arrays, which the compiler turns into vector instructions. The backward pass
walks the same lists from the back, taking each pixel's light back to what it was.
"""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import math

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from .numba_lists import TALL, WIDE

_SIZE = WIDE * TALL
_SUMS = {"reassoc", "contract"}  # sums in any order, fused: still the same bits at every run


def _exp(x):
    """e^x for x <= 0; below -6, where no alpha counts, e^-6."""
    raise NotImplementedError  # compiled only


@overload(_exp)
def _exp_of(x):
    if x != types.float32:
        return lambda x: math.exp(max(x, -6.0))
    one, step, middle = np.float32(1), np.float32(0.25), np.float32(0.75)
    c2, c3, c4, c5, c6 = (np.float32(1 / math.factorial(k)) for k in (2, 3, 4, 5, 6))
    c7, c8, c9 = (np.float32(1 / math.factorial(k)) for k in (7, 8, 9))
    least, scale = np.float32(-6), np.float32(math.exp(-0.75))

    def short(x):
        # (e^-0.75 e^y)^4 with y = x / 4 + 0.75 in [-0.75, 0.75]: no table and no branch, as vectors want it.
        y = (x if x > least else least) * step + middle
        high = c5 + y * (c6 + y * (c7 + y * (c8 + y * c9)))
        root = scale * (one + y * (one + y * (c2 + y * (c3 + y * (c4 + y * high)))))
        square = root * root
        return square * square

    return short


@njit(cache=True, error_model="numpy", inline="always")
def _corner(tile, across, down, height, width):
    """View and pixels [x0, x1) x [y0, y1) of a tile."""
    v, t = tile // (across * down), tile % (across * down)
    y0, x0 = (t // across) * TALL, (t % across) * WIDE
    return v, x0, min(x0 + WIDE, width), y0, min(y0 + TALL, height)


@njit(cache=True, error_model="numpy")
def _run(x, y, a, b, c, reach, corner):
    """Pixels [begin, end) of a tile in the rows where the ellipse a dx^2 + 2 b dx dy + c dy^2 <= reach round (x, y)
    meets it between its sides; a little wide.

    Over an interval of dx the ellipse's upper side is highest where the whole ellipse is, or at the end nearest to
    that, and its lower side lowest opposite. In float64, for the determinant of a needle cancels.
    """
    _, left, right, top, bottom = corner
    x, y, a, b, c, reach = [np.float64(value) for value in (x, y, a, b, c, reach)]
    det = a * c - b * b
    wide, peak = math.sqrt(reach * c / det), -b * math.sqrt(reach / (a * det))
    low, high = max(left + 0.5 - x, -wide), min(right - 0.5 - x, wide)
    if low > high:
        return 0, 0
    up, down = max(low, min(peak, high)), max(low, min(-peak, high))
    highest = y + (math.sqrt(max(c * reach - det * up * up, 0.0)) - b * up) / c
    lowest = y - (math.sqrt(max(c * reach - det * down * down, 0.0)) + b * down) / c
    first = max(top, int(math.ceil(max(lowest - 0.6, top - 1.0))))
    last = min(bottom, int(math.floor(min(highest + 0.6, bottom + 1.0))))
    return (first - top) * WIDE, max(first, last) * WIDE - top * WIDE


@njit(cache=True, error_model="numpy", inline="always")
def _ellipse(gaussians, v, n, least):
    """(x, y, a, b, c, opacity, largest q) of a Gaussian; q = a dx^2 + 2 b dx dy + c dy^2."""
    means, conics, opacities, _ = gaussians
    log = math.log(opacities[v, n] / least)
    a, b, c = conics[v, n, 0], conics[v, n, 1], conics[v, n, 2]
    return means[v, n, 0], means[v, n, 1], a, b, c, opacities[v, n], log + log


@njit(cache=True, error_model="numpy")
def _centres(corner, one, across, along):
    """Pixel centres of a tile, row by row."""
    half = one / (one + one)
    for i in range(_SIZE):
        across[i] = one * (corner[1] + i % WIDE) + half
        along[i] = one * (corner[3] + i // WIDE) + half


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _blend(across, along, gaussian, mark, one, least, stop, left_over, seen, weight):
    """Weights of one Gaussian at a run of pixels; the light that is left over turns negative where a pixel ends."""
    x, y, a, b, c, opacity, _ = gaussian
    zero, half = one - one, one / (one + one)
    for i in range(len(across)):
        dx, dy = across[i] - x, along[i] - y
        alpha = opacity * _exp(-half * (dx * (a * dx + (b + b) * dy) + c * dy * dy))
        alpha = alpha if alpha >= least else zero
        before = left_over[i]
        after = before * (one - alpha)
        open_ = after >= stop  # as it is for ever where nothing is added: light starts at one
        found = alpha * before if open_ else zero
        left_over[i] = after if open_ else -abs(before)
        weight[i] = found
        seen[i] = mark if found > zero else seen[i]


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _add(x, factor, total):
    for i in range(len(total)):
        total[i] += x[i] * factor


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _dot(x, y, total):
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _forward_tile(gaussians, ids, begin, end, one, least, stop, corner, total, light, last):
    v, left, right, top, bottom = corner
    channels = total.shape[3]
    values = gaussians[3]
    color = np.zeros((channels, _SIZE), light.dtype)
    left_over, seen = np.full(_SIZE, -one, light.dtype), np.zeros(_SIZE, np.int32)
    across, along, weight = (np.empty(_SIZE, light.dtype), np.empty(_SIZE, light.dtype), np.empty(_SIZE, light.dtype))
    _centres(corner, one, across, along)
    for py in range(bottom - top):
        for px in range(right - left):
            left_over[py * WIDE + px] = one
    for slot in range(begin, end):
        if (slot - begin) % 32 == 31 and left_over.max() < 0:
            break
        n = ids[slot]
        gaussian = _ellipse(gaussians, v, n, least)
        i0, i1 = _run(*gaussian[:5], gaussian[6], corner)
        at_x, at_y, w, mark = across[i0:i1], along[i0:i1], weight[i0:i1], np.int32(slot - begin + 1)
        _blend(at_x, at_y, gaussian, mark, one, least, stop, left_over[i0:i1], seen[i0:i1], w)
        for k in range(channels):
            _add(w, values[v, n, k], color[k, i0:i1])
    for py in range(top, bottom):
        for px in range(left, right):
            i = (py - top) * WIDE + px - left
            light[v, py, px], last[v, py, px] = abs(left_over[i]), seen[i]
            for k in range(channels):
                total[v, py, px, k] = color[k, i]


@njit(parallel=True, cache=True, error_model="numpy")
def forward(gaussians, tiles, ids, one, least, stop, total, light, last):
    """Blend into total [B, H, W, C]; ``light`` [B, H, W] is what is left behind the ``last`` entry of the tile's list
    that counts (1 is the first, 0 none)."""
    views, height, width = light.shape
    across, down = (width + WIDE - 1) // WIDE, (height + TALL - 1) // TALL
    for tile in prange(views * across * down):
        corner = _corner(tile, across, down, height, width)
        _forward_tile(gaussians, ids, tiles[tile], tiles[tile + 1], one, least, stop, corner, total, light, last)


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _unblend(across, along, gaussian, mark, one, least, seen, after, behind, g, weight):
    """With G = d loss / d w in ``g`` and S, the sum over what lies behind of G w, in ``behind``: G becomes
    alpha d loss / d alpha = alpha (T G - S / (1 - alpha)), light and sums become those in front."""
    x, y, a, b, c, opacity, _ = gaussian
    zero, half = one - one, one / (one + one)
    for i in range(len(across)):
        dx, dy = across[i] - x, along[i] - y
        alpha = opacity * _exp(-half * (dx * (a * dx + (b + b) * dy) + c * dy * dy))
        alpha = alpha if (alpha >= least) & (mark < seen[i]) else zero
        rest = one / (one - alpha)
        before = after[i] * rest
        weight[i] = alpha * before
        slope = alpha * (before * g[i] - behind[i] * rest)
        behind[i] += alpha * before * g[i]
        after[i], g[i] = before, slope


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _moments(across, along, gaussian, one, g, out):
    """A Gaussian's gradient but for its values, into out [8]; log(alpha) = log(opacity) - q / 2."""
    x, y, a, b, c, opacity, _ = gaussian
    zero, half = one - one, one / (one + one)
    m, mx, my, mxx, mxy, myy, sx, sy = zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(len(across)):
        dx, dy = across[i] - x, along[i] - y
        gx, gy = g[i] * dx, g[i] * dy
        m += g[i]
        mx += gx
        my += gy
        mxx += gx * dx
        mxy += gx * dy
        myy += gy * dy
        sx += abs(a * gx + b * gy)
        sy += abs(b * gx + c * gy)
    out[0], out[1] = a * mx + b * my, b * mx + c * my
    out[2], out[3], out[4] = -half * mxx, -mxy, -half * myy
    out[5], out[6], out[7] = m / opacity, sx, sy


@njit(cache=True, error_model="numpy")
def _load_tile(corner, one, light, last, g_total, g_opacity):
    """A tile's part of the pictures, row by row: light, last entry, gradients of opacity and of values."""
    v, left, right, top, bottom = corner
    channels = g_total.shape[3]
    after, seen = np.ones(_SIZE, light.dtype), np.zeros(_SIZE, np.int32)
    g_sum, g_color = np.zeros(_SIZE, light.dtype), np.zeros((channels, _SIZE), light.dtype)
    for py in range(top, bottom):
        for px in range(left, right):
            i = (py - top) * WIDE + px - left
            after[i], seen[i], g_sum[i] = light[v, py, px], last[v, py, px], g_opacity[v, py, px]
            for k in range(channels):
                g_color[k, i] = g_total[v, py, px, k]
    return after, seen, g_sum, g_color


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _backward_tile(gaussians, ids, rows, begin, end, one, least, corner, light, last, g_total, g_opacity, out):
    v = corner[0]
    values = gaussians[3]
    channels = values.shape[2]
    after, seen, g_sum, g_color = _load_tile(corner, one, light, last, g_total, g_opacity)
    across, along, weight = (np.empty(_SIZE, light.dtype), np.empty(_SIZE, light.dtype), np.empty(_SIZE, light.dtype))
    behind, g = np.zeros(_SIZE, light.dtype), np.empty(_SIZE, light.dtype)
    _centres(corner, one, across, along)
    for slot in range(min(end, begin + seen.max()) - 1, begin - 1, -1):
        n, row = ids[slot], out[rows[slot]]
        gaussian = _ellipse(gaussians, v, n, least)
        i0, i1 = _run(*gaussian[:5], gaussian[6], corner)
        at_x, at_y, slope, w = across[i0:i1], along[i0:i1], g[i0:i1], weight[i0:i1]
        slope[:] = g_sum[i0:i1]
        for k in range(channels):
            _add(g_color[k, i0:i1], values[v, n, k], slope)
        mark = np.int32(slot - begin)
        _unblend(at_x, at_y, gaussian, mark, one, least, seen[i0:i1], after[i0:i1], behind[i0:i1], slope, w)
        _moments(at_x, at_y, gaussian, one, slope, row)
        for k in range(channels):
            row[8 + k] = _dot(w, g_color[k, i0:i1], one - one)


@njit(parallel=True, cache=True, error_model="numpy")
def backward(gaussians, tiles, ids, rows, one, least, light, last, g_total, g_opacity, out):
    """Each entry's gradient into its row of out [S, 8 + C] (zeroed): mean, conic, opacity, |mean|, values."""
    views, height, width = light.shape
    across, down = (width + WIDE - 1) // WIDE, (height + TALL - 1) // TALL
    for tile in prange(views * across * down):
        corner = _corner(tile, across, down, height, width)
        begin, end = tiles[tile], tiles[tile + 1]
        _backward_tile(gaussians, ids, rows, begin, end, one, least, corner, light, last, g_total, g_opacity, out)
