"""Ray marching in plain PyTorch: every step of every ray at once, a bounded number of rays at a time."""

from __future__ import annotations

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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(t_starts, t_ends, ray_ids, offsets): see :func:`core.kernels.marching.march`."""
    count = starts.shape[0]
    longest = int(steps.max()) if count else 0
    share = max(1, _AT_ONCE // max(1, longest))
    parts = [
        _some(starts[i:j], moves[i:j], binary, t0[i:j], t1[i:j], steps[i:j], step_size, jitter[i:j], max_samples)
        for i, j in ((i, min(i + share, count)) for i in range(0, count, share))
    ]
    kept = torch.cat([p[2] for p in parts]) if parts else steps.new_zeros(0)
    offsets = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
    t_starts = torch.cat([p[0] for p in parts]) if parts else t0.new_zeros(0)
    t_ends = torch.cat([p[1] for p in parts]) if parts else t0.new_zeros(0)
    ray_ids = torch.repeat_interleave(torch.arange(count, device=starts.device), kept)
    return t_starts, t_ends, ray_ids, offsets


def _some(
    starts: Tensor,
    moves: Tensor,
    binary: Tensor,
    t0: Tensor,
    t1: Tensor,
    steps: Tensor,
    step_size: float,
    jitter: Tensor,
    max_samples: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Intervals of some rays, and how many of each: (t_starts [m], t_ends [m], kept [n])."""
    k = torch.arange(int(steps.max()), device=starts.device, dtype=starts.dtype)
    low = t0[:, None] + (k - jitter[:, None]).clamp(min=0) * step_size
    high = torch.minimum(t0[:, None] + (k + 1 - jitter[:, None]) * step_size, t1[:, None])
    cell = starts[:, None, :] + moves[:, None, :] * (0.5 * (low + high))[..., None]
    shape = torch.tensor(binary.shape, device=starts.device)
    # Rounding can put a sample on the box's far side a hair outside: it counts as the last cell.
    x, y, z = torch.minimum(cell.long().clamp(min=0), shape - 1).unbind(-1)
    keep = (k < steps[:, None]) & (high > low) & binary[x, y, z]
    keep &= keep.cumsum(1) <= max_samples
    return low[keep], high[keep], keep.sum(1)
