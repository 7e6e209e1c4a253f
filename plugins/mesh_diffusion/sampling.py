"""The way from noise to a grid: DDIM, ancestral, or anything between (Song et al. 2021, "Denoising Diffusion Implicit
Models", equation 12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from core.diffusion.process import DiffusionProcess


def stochastic_walk(
    process: DiffusionProcess,
    estimate: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    times: Sequence[Tensor],
    eta: float,
    generator: torch.Generator,
    mask: Tensor,
) -> Tensor:
    """``start`` [B, C, R, R, R] at timesteps ``times[0]`` [B] taken down to ``times[-1]``.

    Args:
        estimate: gives x0 at noisy values and timesteps.
        eta: how many times the ancestral step's standard deviation is added as new noise; 0 is DDIM.
        mask: 1 in the cells that are vertices; the others stay zero.
    """
    x = start
    for now, after in pairwise(times):
        (a, s), (a_after, s_after) = process.scales(now, x), process.scales(after, x)
        x0 = estimate(x, now)
        variance = eta**2 * (s_after / s) ** 2 * (1 - (a / a_after) ** 2)
        x = a_after * x0 + (s_after**2 - variance).clamp(min=0).sqrt() * (x - a * x0) / s
        if eta:
            noise = torch.randn(x.shape, generator=generator).to(x) * mask
            x = x + variance.clamp(min=0).sqrt() * noise
    return x
