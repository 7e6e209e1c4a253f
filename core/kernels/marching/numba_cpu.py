"""Ray marching compiled for the CPU: rays in parallel, one pass to count, one to fill."""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from core.kernels.numba_tools import array, run


def march(
    starts: Tensor,
    moves: Tensor,
    binary: Tensor,
    t0: Tensor,
    t1: Tensor,
    steps: Tensor,
    step_size: float,
    jitter: Tensor,
    max_samples: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(t_starts, t_ends, ray_ids, offsets): see :func:`core.kernels.marching.march`."""
    rays, real = starts.shape[0], np.float64 if starts.dtype == torch.float64 else np.float32
    inputs: list[Any] = [array(x) for x in (starts, moves, binary)]
    inputs += [run(_blocks, inputs[2]), *(array(x) for x in (t0, t1, steps))]
    inputs += [real(step_size), array(jitter.to(starts.dtype)), max_samples, real(1)]
    offsets = torch.zeros(rays + 1, dtype=torch.int64)
    none = np.empty(0, real)
    run(_walk, *inputs, offsets.numpy(), False, none, none, np.empty(0, np.int64))
    torch.cumsum(offsets, 0, out=offsets)
    total = int(offsets[-1])
    t_starts, t_ends = t0.new_empty(total), t0.new_empty(total)
    ray_ids = torch.empty(total, dtype=torch.int64)
    run(_walk, *inputs, offsets.numpy(), True, t_starts.numpy(), t_ends.numpy(), ray_ids.numpy())
    return t_starts, t_ends, ray_ids, offsets


@njit(cache=True, error_model="numpy")
def _blocks(binary):
    """Which blocks of 4 x 4 x 4 cells hold an occupied one."""
    size0, size1, size2 = binary.shape
    blocks = np.zeros(((size0 + 3) >> 2, (size1 + 3) >> 2, (size2 + 3) >> 2), np.bool_)
    for x in range(size0):
        for y in range(size1):
            for z in range(size2):
                blocks[x >> 2, y >> 2, z >> 2] |= binary[x, y, z]
    return blocks


@njit(cache=True, error_model="numpy", inline="always")
def _cell(start, move, t, size):
    """Cell along one axis; rounding can put a sample a hair outside the box."""
    i = np.int64(start + move * t)
    i = i if i > 0 else 0
    return i if i < size else size - 1


@njit(cache=True, error_model="numpy", inline="always")
def _leave(start, move, inverse, t, four, far):
    """Distance at which the ray leaves its block of 4 cells along one axis."""
    if move == far - far:
        return far
    edge = np.floor((start + move * t) / four) * four
    edge = edge + four if move > far - far else edge
    return (edge - start) * inverse


@njit(parallel=True, cache=True, error_model="numpy")
def _walk(
    starts, moves, binary, blocks, t0, t1, steps, step, jitter, most, one, offsets, fill, t_starts, t_ends, ray_ids
):
    """Count each ray's samples into offsets[ray + 1], or with ``fill`` write them from offsets[ray] on."""
    size0, size1, size2 = binary.shape
    # All in the float type of the rays: Numba would widen a product with an integer to float64.
    zero, half, four = one - one, one / (one + one), (one + one) * (one + one)
    per_step = one / step
    for ray in prange(starts.shape[0]):
        found, at = 0, offsets[ray] if fill else 0
        first, last, shift = t0[ray], t1[ray], jitter[ray]
        ox, oy, oz = starts[ray, 0], starts[ray, 1], starts[ray, 2]
        dx, dy, dz = moves[ray, 0], moves[ray, 1], moves[ray, 2]
        ix, iy, iz = one / dx, one / dy, one / dz
        k = zero
        while k < steps[ray] and found < most:
            low = first + max(k - shift, zero) * step
            high = min(first + (k + one - shift) * step, last)
            mid = half * (low + high)
            x, y, z = _cell(ox, dx, mid, size0), _cell(oy, dy, mid, size1), _cell(oz, dz, mid, size2)
            k += one
            if not blocks[x >> 2, y >> 2, z >> 2]:
                # A little short of the block's end, so that rounding cannot jump over an occupied cell.
                out = min(_leave(ox, dx, ix, mid, four, last), _leave(oy, dy, iy, mid, four, last))
                out = min(out, _leave(oz, dz, iz, mid, four, last))
                k = max(k, np.ceil((out - first) * per_step + shift - half - half / four))
            elif high > low and binary[x, y, z]:
                if fill:
                    t_starts[at + found], t_ends[at + found], ray_ids[at + found] = low, high, ray
                found += 1
        if not fill:
            offsets[ray + 1] = found
