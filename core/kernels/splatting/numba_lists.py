"""The compiled loops round the blending of Gaussians: which tile shows which, and gradients added up per Gaussian.

A tile's list names its Gaussians front to back. Every entry of a list has a row of its own for its gradient, and the
rows of a Gaussian are added in a fixed order: results do not depend on the number of threads.
"""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

WIDE, TALL = 8, 32
"""Pixels of a tile: as wide as a vector of the processor, so that of a Gaussian only the rows that it meets are
visited, and tall enough that a list's entry is worth its overhead."""
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
            touched[v, n] = ((x1 + WIDE - 1) // WIDE - x0 // WIDE) * ((y1 + TALL - 1) // TALL - y0 // TALL)


@njit(parallel=True, cache=True, error_model="numpy")
def tile_sizes(box, across, sizes):
    """Length of each tile's list, into sizes [B, T] (zeroed)."""
    for v in prange(box.shape[0]):
        for n in range(box.shape[1]):
            x0, x1, y0, y1 = box[v, n, 0], box[v, n, 1], box[v, n, 2], box[v, n, 3]
            for ty in range(y0 // TALL, (y1 + TALL - 1) // TALL):
                for tx in range(x0 // WIDE, (x1 + WIDE - 1) // WIDE):
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
            for ty in range(y0 // TALL, (y1 + TALL - 1) // TALL):
                for tx in range(x0 // WIDE, (x1 + WIDE - 1) // WIDE):
                    slot = cursor[ty * across + tx]
                    cursor[ty * across + tx] = slot + 1
                    ids[slot], rows[slot] = n, row
                    row += 1


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
