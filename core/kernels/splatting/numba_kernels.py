"""The compiled loops of splatting: lists of Gaussians per tile, blending, and its gradient.

A tile's Gaussians come front to back; of each, only the rows that its ellipse meets are visited. A row of a tile is
worked on as a whole, in short loops over few arrays, which the compiler turns into vector instructions. The backward
pass walks the same lists from the back, taking each pixel's light back to what it was. Every entry of a list writes its
gradient to a row of its own, and the rows of a Gaussian are added in a fixed order: results do not depend on the number
of threads.
"""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import math

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

TILE = 16
_BLOCK = 1024
_SUMS = {"reassoc", "contract"}  # sums in any order, fused: still the same bits at every run


@njit(cache=True, error_model="numpy", inline="always")
def _clipped(value, high):
    """``value`` as a whole number in [0, high], whatever it is."""
    if not value > 0:
        return 0
    return high if value >= high else int(value)


@njit(parallel=True, cache=True, error_model="numpy")
def boxes(means, conics, opacities, depths, least, height, width, box, touched):
    """Pixels [x0, x1) x [y0, y1) that hold each Gaussian's alpha >= ``least``, and the number of tiles they touch."""
    views, count = depths.shape
    for block in prange((views * count + _BLOCK - 1) // _BLOCK):
        for flat in range(block * _BLOCK, min(views * count, (block + 1) * _BLOCK)):
            v, n = flat // count, flat % count
            a, b, c = conics[v, n, 0], conics[v, n, 1], conics[v, n, 2]
            det = a * c - b * b
            x0 = x1 = y0 = y1 = 0
            # A comparison with a number that is none is false, so such a Gaussian is not drawn.
            if depths[v, n] > 0 and opacities[v, n] >= least and det > 0 and a > 0:
                reach = 2 * math.log(opacities[v, n] / least)
                half_x, half_y = math.sqrt(reach * c / det) + 0.01, math.sqrt(reach * a / det) + 0.01
                x, y = means[v, n, 0], means[v, n, 1]
                if x - half_x < width and x + half_x > 0 and y - half_y < height and y + half_y > 0:
                    x0, x1 = _clipped(math.ceil(x - half_x - 0.5), width), _clipped(math.floor(x + half_x + 0.5), width)
                    y0 = _clipped(math.ceil(y - half_y - 0.5), height)
                    y1 = _clipped(math.floor(y + half_y + 0.5), height)
            if x1 <= x0 or y1 <= y0:
                x0 = x1 = y0 = y1 = 0
            box[v, n, 0], box[v, n, 1], box[v, n, 2], box[v, n, 3] = x0, x1, y0, y1
            touched[v, n] = ((x1 + TILE - 1) // TILE - x0 // TILE) * ((y1 + TILE - 1) // TILE - y0 // TILE)


@njit(parallel=True, cache=True, error_model="numpy")
def tile_sizes(box, across, sizes):
    """Length of each tile's list, into sizes [B, T] (zeroed)."""
    for v in prange(box.shape[0]):
        for n in range(box.shape[1]):
            x0, x1, y0, y1 = box[v, n, 0], box[v, n, 1], box[v, n, 2], box[v, n, 3]
            for ty in range(y0 // TILE, (y1 + TILE - 1) // TILE):
                for tx in range(x0 // TILE, (x1 + TILE - 1) // TILE):
                    sizes[v, ty * across + tx] += 1


@njit(parallel=True, cache=True, error_model="numpy")
def fill(box, order, first, tiles, across, down, ids, rows):
    """The lists: Gaussians dealt to their tiles in the order of depth."""
    count = box.shape[1]
    for v in prange(box.shape[0]):
        cursor = tiles[v * across * down : (v + 1) * across * down].copy()
        for place in range(count):
            n = order[v, place]
            x0, x1, y0, y1 = box[v, n, 0], box[v, n, 1], box[v, n, 2], box[v, n, 3]
            row = first[v * count + n]
            for ty in range(y0 // TILE, (y1 + TILE - 1) // TILE):
                for tx in range(x0 // TILE, (x1 + TILE - 1) // TILE):
                    slot = cursor[ty * across + tx]
                    cursor[ty * across + tx] = slot + 1
                    ids[slot], rows[slot] = n, row
                    row += 1


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
def _lines(y, tall, one, top, bottom):
    """Rows [y0, y1) within ``tall`` of ``y``, between ``top`` and ``bottom``; a little wide."""
    low, high = max(y - tall, one * top), min(y + tall, one * bottom)
    return max(top, int(low - 1)), min(bottom, int(high + 1))


@njit(cache=True, error_model="numpy", inline="always")
def _ellipse(gaussians, v, n, least):
    """(x, y, a, b, c, opacity, largest q, half the height) of a Gaussian; q = a dx^2 + 2 b dx dy + c dy^2."""
    means, conics, opacities, _ = gaussians
    a, b, c = conics[v, n, 0], conics[v, n, 1], conics[v, n, 2]
    log = math.log(opacities[v, n] / least)
    reach = log + log
    return means[v, n, 0], means[v, n, 1], a, b, c, opacities[v, n], reach, math.sqrt(reach * a / (a * c - b * b))


@njit(cache=True, error_model="numpy", inline="always")
def _misses(x, dy, a, b, c, reach, left, right):
    """Whether a row of the tile lies beside the ellipse."""
    shift = b / a
    room = (reach - (c - b * shift) * dy * dy) / a
    if room < 0:
        return True
    half, middle = math.sqrt(room), x - shift * dy
    return middle + half + 1 < left or middle - half - 1 > right


@njit(cache=True, error_model="numpy", inline="always")
def _corner(tile, across, down, height, width):
    """View and pixels [x0, x1) x [y0, y1) of a tile."""
    v, t = tile // (across * down), tile % (across * down)
    y0, x0 = (t // across) * TILE, (t % across) * TILE
    return v, x0, min(x0 + TILE, width), y0, min(y0 + TILE, height)


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _alphas(centre, x, dy, a, b, c, opacity, one, lanes, alpha):
    """Alpha of one Gaussian along a row, into alpha [TILE]."""
    half = one / (one + one)
    across, offset = (b + b) * dy, c * dy * dy
    for j in range(lanes):
        dx = centre[j] - x
        alpha[j] = opacity * _exp(-half * (dx * (a * dx + across) + offset))


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _blend_row(alpha, left_over, seen, r, mark, one, lanes, least, stop):
    """Alphas to weights, in place; row ``r`` of the light that is left over turns negative where the pixel ends."""
    zero = one - one
    for j in range(lanes):
        before = left_over[r, j]
        after = before * (one - alpha[j])
        counts, open_ = alpha[j] >= least, after >= stop
        ended = -abs(before) if counts else before
        alpha[j] = alpha[j] * before if counts & open_ else zero
        left_over[r, j] = after if counts & open_ else ended
    for j in range(lanes):
        seen[r, j] = mark if alpha[j] > zero else seen[r, j]


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _forward_tile(gaussians, ids, begin, end, one, lanes, least, stop, corner, total, light, last):
    v, left, right, top, bottom = corner
    channels = total.shape[3]
    half = one / (one + one)
    values = gaussians[3]
    color = np.zeros((channels, TILE, TILE), light.dtype)
    left_over, seen = np.full((TILE, TILE), -one, light.dtype), np.zeros((TILE, TILE), np.int32)
    left_over[: bottom - top, : right - left] = one
    centre, weight = np.empty(TILE, light.dtype), np.empty(TILE, light.dtype)
    for j in range(lanes):
        centre[j] = one * (left + j) + half
    for slot in range(begin, end):
        if (slot - begin) % 32 == 31 and left_over.max() < 0:
            break
        n = ids[slot]
        x, y, a, b, c, opacity, reach, tall = _ellipse(gaussians, v, n, least)
        low, high = _lines(y, tall, one, top, bottom)
        for py in range(low, high):
            dy = one * py + half - y
            if _misses(x, dy, a, b, c, reach, left, right):
                continue
            r = py - top
            _alphas(centre, x, dy, a, b, c, opacity, one, lanes, weight)
            _blend_row(weight, left_over, seen, r, np.int32(slot - begin + 1), one, lanes, least, stop)
            for k in range(channels):
                value = values[v, n, k]
                for j in range(lanes):
                    color[k, r, j] += weight[j] * value
    for py in range(top, bottom):
        for px in range(left, right):
            light[v, py, px], last[v, py, px] = abs(left_over[py - top, px - left]), seen[py - top, px - left]
            for k in range(channels):
                total[v, py, px, k] = color[k, py - top, px - left]


@njit(parallel=True, cache=True, error_model="numpy")
def forward(gaussians, tiles, ids, one, lanes, least, stop, total, light, last):
    """Blend into total [B, H, W, C]; ``light`` [B, H, W] is what is left behind the ``last`` entry of the tile's list
    that counts (1 is the first, 0 none)."""
    views, height, width = light.shape
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    for tile in prange(views * across * down):
        corner = _corner(tile, across, down, height, width)
        begin, end = tiles[tile], tiles[tile + 1]
        _forward_tile(gaussians, ids, begin, end, one, lanes, least, stop, corner, total, light, last)


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _unblend_row(alpha, g, after, behind, seen, r, mark, one, lanes, least):
    """With G = d loss / d w in ``g`` and S, the sum over what lies behind of G w, in ``behind``: alphas to weights, and
    G to alpha d loss / d alpha = alpha (T G - S / (1 - alpha)), in place; light and sums to those in front."""
    zero = one - one
    for j in range(lanes):
        alpha[j] = alpha[j] if (alpha[j] >= least) & (mark < seen[r, j]) else zero
    for j in range(lanes):
        rest = one / (one - alpha[j])
        before = after[r, j] * rest
        weight = alpha[j] * before
        slope = alpha[j] * (before * g[j] - behind[r, j] * rest)
        behind[r, j] += weight * g[j]
        after[r, j], alpha[j], g[j] = before, weight, slope


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _moments(g, centre, x, dy, a, b, c, lanes, zero):
    """Sums over a row of g, g dx and g dx^2, and of |g (a dx + b dy)| and |g (b dx + c dy)|."""
    m0 = m1 = m2 = sx = sy = zero
    for j in range(lanes):
        dx = centre[j] - x
        m0 += g[j]
        m1 += g[j] * dx
        m2 += g[j] * dx * dx
        sx += abs(g[j] * (a * dx + b * dy))
        sy += abs(g[j] * (b * dx + c * dy))
    return m0, m1, m2, sx, sy


@njit(cache=True, error_model="numpy")
def _load_tile(corner, one, light, last, g_total, g_opacity):
    """A tile's part of the pictures, rows of TILE lanes: light, last entry, gradients of opacity and of values."""
    v, left, right, top, bottom = corner
    channels = g_total.shape[3]
    after, seen = np.ones((TILE, TILE), light.dtype), np.zeros((TILE, TILE), np.int32)
    g_sum, g_color = np.zeros((TILE, TILE), light.dtype), np.zeros((channels, TILE, TILE), light.dtype)
    for py in range(top, bottom):
        for px in range(left, right):
            r, j = py - top, px - left
            after[r, j], seen[r, j], g_sum[r, j] = light[v, py, px], last[v, py, px], g_opacity[v, py, px]
            for k in range(channels):
                g_color[k, r, j] = g_total[v, py, px, k]
    return after, seen, g_sum, g_color


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _backward_tile(gaussians, ids, rows, begin, end, one, lanes, least, corner, light, last, g_total, g_opacity, out):
    v, left, right, top, bottom = corner
    values = gaussians[3]
    channels = values.shape[2]
    zero, half = one - one, one / (one + one)
    after, seen, g_sum, g_color = _load_tile(corner, one, light, last, g_total, g_opacity)
    behind = np.zeros((TILE, TILE), light.dtype)
    centre, weight, g = np.empty(TILE, light.dtype), np.empty(TILE, light.dtype), np.empty(TILE, light.dtype)
    for j in range(lanes):
        centre[j] = one * (left + j) + half
    for slot in range(min(end, begin + seen.max()) - 1, begin - 1, -1):
        n, row = ids[slot], rows[slot]
        x, y, a, b, c, opacity, reach, tall = _ellipse(gaussians, v, n, least)
        low, high = _lines(y, tall, one, top, bottom)
        for py in range(low, high):
            dy = one * py + half - y
            if _misses(x, dy, a, b, c, reach, left, right):
                continue
            r = py - top
            _alphas(centre, x, dy, a, b, c, opacity, one, lanes, weight)
            for j in range(lanes):
                g[j] = g_sum[r, j]
            for k in range(channels):
                value = values[v, n, k]
                for j in range(lanes):
                    g[j] += g_color[k, r, j] * value
            _unblend_row(weight, g, after, behind, seen, r, np.int32(slot - begin), one, lanes, least)
            m0, m1, m2, sx, sy = _moments(g, centre, x, dy, a, b, c, lanes, zero)
            # log(alpha) = log(o) - q / 2.
            out[row, 0] += a * m1 + b * dy * m0
            out[row, 1] += b * m1 + c * dy * m0
            out[row, 2] -= half * m2
            out[row, 3] -= dy * m1
            out[row, 4] -= half * dy * dy * m0
            out[row, 5] += m0 / opacity
            out[row, 6] += sx
            out[row, 7] += sy
            for k in range(channels):
                total = zero
                for j in range(lanes):
                    total += weight[j] * g_color[k, r, j]
                out[row, 8 + k] += total


@njit(parallel=True, cache=True, error_model="numpy")
def backward(gaussians, tiles, ids, rows, one, lanes, least, light, last, g_total, g_opacity, out):
    """Each entry's gradient into its row of out [S, 8 + C] (zeroed): mean, conic, opacity, |mean|, values."""
    views, height, width = light.shape
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    for tile in prange(views * across * down):
        corner = _corner(tile, across, down, height, width)
        begin, end = tiles[tile], tiles[tile + 1]
        _backward_tile(
            gaussians, ids, rows, begin, end, one, lanes, least, corner, light, last, g_total, g_opacity, out
        )


@njit(parallel=True, cache=True, error_model="numpy")
def gather(rows, first, g_means, g_conics, g_opacities, g_values, size):
    """Add up the rows of each Gaussian."""
    views, count, channels = g_values.shape
    width = rows.shape[1]
    for block in prange((views * count + _BLOCK - 1) // _BLOCK):
        total = np.empty(width, rows.dtype)
        for flat in range(block * _BLOCK, min(views * count, (block + 1) * _BLOCK)):
            v, n = flat // count, flat % count
            total[:] = 0
            for row in range(first[flat], first[flat + 1]):
                for k in range(width):
                    total[k] += rows[row, k]
            g_means[v, n, 0], g_means[v, n, 1] = total[0], total[1]
            g_conics[v, n, 0], g_conics[v, n, 1], g_conics[v, n, 2] = total[2], total[3], total[4]
            g_opacities[v, n] = total[5]
            size[v, n, 0], size[v, n, 1] = total[6], total[7]
            for k in range(channels):
                g_values[v, n, k] = total[8 + k]
