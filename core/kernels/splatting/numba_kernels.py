"""The compiled loops of splatting: lists of Gaussians per tile, blending, and its gradient.

A tile's Gaussians come front to back; of each, only the pixels within its ellipse are visited, row by row. The backward
pass walks the same lists from the back, taking each pixel's light back to what it was. Every entry of a list writes its
gradient to a row of its own, and the rows of a Gaussian are added in a fixed order: results do not depend on the number
of threads.
"""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

TILE = 16
_BLOCK = 1024


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


@njit(cache=True, error_model="numpy", inline="always")
def _ellipse(conics, opacities, v, n, least):
    """(b / a, 1 / a, c - b^2 / a, largest q): what :func:`_span` needs; q = a dx^2 + 2 b dx dy + c dy^2."""
    a, b, c = conics[v, n, 0], conics[v, n, 1], conics[v, n, 2]
    log = math.log(opacities[v, n] / least)
    return b / a, 1 / a, c - b * b / a, log + log


@njit(cache=True, error_model="numpy", inline="always")
def _span(x, dy, shift, inverse, slope, reach, left, right):
    """Columns [x0, x1) of one row within the ellipse, between ``left`` and ``right``; a little wide."""
    room = (reach - slope * dy * dy) * inverse
    if room < 0:
        return left, left
    half, middle = math.sqrt(room), x - shift * dy
    x0, x1 = math.ceil(middle - half - 0.51), math.floor(middle + half + 0.51)
    return max(left, int(x0)) if x0 > left else left, int(x1) if x1 < right else right


@njit(cache=True, error_model="numpy", inline="always")
def _lines(y, tall, one, top, bottom):
    """Rows [y0, y1) within ``tall`` of ``y``, between ``top`` and ``bottom``; a little wide."""
    low, high = max(y - tall, one * top), min(y + tall, one * bottom)
    return max(top, int(low - 1)), min(bottom, int(high + 1))


@njit(cache=True, error_model="numpy", inline="always")
def _corner(tile, across, down, height, width):
    """View and pixels [x0, x1) x [y0, y1) of a tile."""
    v, t = tile // (across * down), tile % (across * down)
    y0, x0 = (t // across) * TILE, (t % across) * TILE
    return v, x0, min(x0 + TILE, width), y0, min(y0 + TILE, height)


@njit(cache=True, error_model="numpy")
def _forward_tile(gaussians, ids, begin, end, one, least, stop, corner, total, light, last):
    means, conics, opacities, values = gaussians
    v, left, right, top, bottom = corner
    channels = values.shape[2]
    half = one / (one + one)
    alive = (right - left) * (bottom - top)
    done = np.zeros((TILE, TILE), np.bool_)
    for slot in range(begin, end):
        if alive == 0:
            break
        n = ids[slot]
        x, y, a, b, c = means[v, n, 0], means[v, n, 1], conics[v, n, 0], conics[v, n, 1], conics[v, n, 2]
        opacity = opacities[v, n]
        shift, inverse, slope, reach = _ellipse(conics, opacities, v, n, least)
        low, high = _lines(y, math.sqrt(reach * a / (a * c - b * b)), one, top, bottom)
        for py in range(low, high):
            dy = one * py + half - y
            x0, x1 = _span(x, dy, shift, inverse, slope, reach, left, right)
            for px in range(x0, x1):
                if done[py - top, px - left]:
                    continue
                dx = one * px + half - x
                alpha = opacity * math.exp(-half * (a * dx * dx + (b + b) * dx * dy + c * dy * dy))
                if alpha < least:
                    continue
                before = light[v, py, px]
                after = before * (one - alpha)
                if after < stop:
                    done[py - top, px - left] = True
                    alive -= 1
                    continue
                weight = alpha * before
                for k in range(channels):
                    total[v, py, px, k] += weight * values[v, n, k]
                light[v, py, px] = after
                last[v, py, px] = slot + 1


@njit(parallel=True, cache=True, error_model="numpy")
def forward(gaussians, tiles, ids, one, least, stop, total, light, last):
    """Blend into total [B, H, W, C] (zeroed); ``light`` [B, H, W] (ones) is what is left behind the ``last`` entry."""
    views, height, width = light.shape
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    for tile in prange(views * across * down):
        corner = _corner(tile, across, down, height, width)
        begin, end = tiles[tile], tiles[tile + 1]
        _forward_tile(gaussians, ids, begin, end, one, least, stop, corner, total, light, last)


@njit(cache=True, error_model="numpy")
def _backward_tile(gaussians, ids, rows, begin, end, one, least, corner, light, last, g_total, g_opacity, out):
    """With G_i = d loss / d w_i and S_i the sum over what lies behind of G_k w_k:
    d loss / d alpha_i = T_i G_i - S_i / (1 - alpha_i)."""
    means, conics, opacities, values = gaussians
    v, left, right, top, bottom = corner
    channels = values.shape[2]
    zero, half = one - one, one / (one + one)
    after = light[v, top:bottom, left:right].copy()
    behind = np.zeros_like(after)
    for slot in range(end - 1, begin - 1, -1):
        n, row = ids[slot], rows[slot]
        x, y, a, b, c = means[v, n, 0], means[v, n, 1], conics[v, n, 0], conics[v, n, 1], conics[v, n, 2]
        opacity = opacities[v, n]
        shift, inverse, slope, reach = _ellipse(conics, opacities, v, n, least)
        low, high = _lines(y, math.sqrt(reach * a / (a * c - b * b)), one, top, bottom)
        gx = gy = ga = gb = gc = go = sx = sy = zero
        for py in range(low, high):
            dy = one * py + half - y
            x0, x1 = _span(x, dy, shift, inverse, slope, reach, left, right)
            for px in range(x0, x1):
                if slot >= last[v, py, px]:
                    continue
                dx = one * px + half - x
                alpha = opacity * math.exp(-half * (a * dx * dx + (b + b) * dx * dy + c * dy * dy))
                if alpha < least:
                    continue
                rest = one / (one - alpha)
                before = after[py - top, px - left] * rest
                after[py - top, px - left] = before
                weight = alpha * before
                g = g_opacity[v, py, px]
                for k in range(channels):
                    g += g_total[v, py, px, k] * values[v, n, k]
                    out[row, 8 + k] += weight * g_total[v, py, px, k]
                d_alpha = before * g - behind[py - top, px - left] * rest
                behind[py - top, px - left] += weight * g
                go += d_alpha * alpha
                d_q = -half * alpha * d_alpha
                mx, my = -(d_q + d_q) * (a * dx + b * dy), -(d_q + d_q) * (b * dx + c * dy)
                gx += mx
                gy += my
                sx += abs(mx)
                sy += abs(my)
                ga += d_q * dx * dx
                gb += (d_q + d_q) * dx * dy
                gc += d_q * dy * dy
        out[row, 0], out[row, 1], out[row, 2], out[row, 3] = gx, gy, ga, gb
        out[row, 4], out[row, 5], out[row, 6], out[row, 7] = gc, go / opacity, sx, sy


@njit(parallel=True, cache=True, error_model="numpy")
def backward(gaussians, tiles, ids, rows, one, least, light, last, g_total, g_opacity, out):
    """Each entry's gradient into its row of out [S, 8 + C] (zeroed): mean, conic, opacity, |mean|, values."""
    views, height, width = light.shape
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    for tile in prange(views * across * down):
        corner = _corner(tile, across, down, height, width)
        begin, end = tiles[tile], tiles[tile + 1]
        _backward_tile(gaussians, ids, rows, begin, end, one, least, corner, light, last, g_total, g_opacity, out)


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
