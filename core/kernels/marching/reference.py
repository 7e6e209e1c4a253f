"""Ray marching in plain PyTorch: every step of every ray at once, a bounded number of rays at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_AT_ONCE = 1 << 22  # steps in flight: about 200 MB


def march(
    starts: Tensor,  # [N, 3] in cells
    moves: Tensor,  # [N, 3] in cells per unit of t
    binary: Tensor,  # [R0, R1, R2]
    t0: Tensor,  # [N]
    t1: Tensor,  # [N]
    steps: Tensor,  # [N] int64
    step_size: float,
    jitter: Tensor,  # [N]
    max_samples: int,
    stepping: Callable[..., Any] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(t_starts, t_ends, ray_ids, offsets): see :func:`core.kernels.marching.march`; ``stepping`` stands for
    :func:`steps_of`."""
    count = starts.shape[0]
    longest = int(steps.max()) if count else 0
    share = max(1, _AT_ONCE // max(1, longest))
    parts = []
    for i in range(0, count, share):
        j = min(i + share, count)
        k = torch.arange(int(steps[i:j].max()), device=starts.device, dtype=starts.dtype)
        rays = (starts[i:j], moves[i:j], t0[i:j], t1[i:j], steps[i:j], jitter[i:j])
        low, high, keep = (stepping or steps_of)(k, *rays, binary, step_size, max_samples)
        parts.append((low[keep], high[keep], keep.sum(1)))
    kept = torch.cat([p[2] for p in parts]) if parts else steps.new_zeros(0)
    offsets = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
    t_starts = torch.cat([p[0] for p in parts]) if parts else t0.new_zeros(0)
    t_ends = torch.cat([p[1] for p in parts]) if parts else t0.new_zeros(0)
    ray_ids = torch.repeat_interleave(torch.arange(count, device=starts.device), kept)
    return t_starts, t_ends, ray_ids, offsets


def steps_of(
    k: Tensor,  # [K] numbers of steps
    starts: Tensor,
    moves: Tensor,
    t0: Tensor,
    t1: Tensor,
    steps: Tensor,
    jitter: Tensor,
    binary: Tensor,
    step_size: float,
    max_samples: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Every interval of some rays and which of them are kept: (t_starts, t_ends, keep), each [n, K]."""
    low = t0[:, None] + (k - jitter[:, None]).clamp(min=0) * step_size
    high = torch.minimum(t0[:, None] + (k + 1 - jitter[:, None]) * step_size, t1[:, None])
    cell = starts[:, None, :] + moves[:, None, :] * (0.5 * (low + high))[..., None]
    shape = torch.tensor(binary.shape, device=starts.device)
    # Rounding can put a sample on the box's far side a hair outside: it counts as the last cell.
    x, y, z = torch.minimum(cell.long().clamp(min=0), shape - 1).unbind(-1)
    keep = (k < steps[:, None]) & (high > low) & binary[x, y, z]
    return low, high, keep & (keep.cumsum(1) <= max_samples)
