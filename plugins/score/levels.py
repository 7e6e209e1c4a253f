"""Noise levels of a step: stratified, annealed, and spread by a prior over time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from core.contracts import Step

Anneal = Literal["none", "linear", "sqrt"]
TimePrior = Literal["uniform", "dreamtime"]

_FINE = 1000


def levels(count: int, low: float, high: float, step: Step, anneal: Anneal, time_prior: TimePrior) -> Tensor:
    """[count] noise levels in [low, high].

    Without annealing, one in each of ``count`` equal parts of the range: fewer lucky and unlucky steps. With it, all
    are one level that falls from high to low with the run's share p: linearly, or by sqrt(p) (Zhu et al. 2023, eq. 8).
    """
    if anneal == "none":
        generator = step.generator("score-level")
        parts = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    else:
        done = step.index / max(step.total - 1, 1)
        parts = torch.full((count,), 1 - (done if anneal == "linear" else done**0.5))
    if time_prior == "dreamtime":
        return _quantile(low, high, parts)
    return low + (high - low) * parts


def dreamtime(level: Tensor) -> Tensor:
    """How much of a run each level deserves, unnormalised: ``s/a`` times a bell with a flat top between 0.5 and 0.8.

    Huang et al. 2023, eq. 7 to 9, with their m1 = 800, m2 = 500, s1 = 300, s2 = 100 and Stable Diffusion's process, of
    any prior's levels.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    bar = torch.cumprod(1 - betas, 0)[(level * 1000).long().clamp(0, 999)]
    above, below = (level - 0.8).clamp(min=0) / 0.3, (0.5 - level).clamp(min=0) / 0.1
    return ((1 - bar) / bar).sqrt() * torch.exp(-(above**2) / 2 - below**2 / 2)


def _quantile(low: float, high: float, parts: Tensor) -> Tensor:
    """Levels below which the shares ``parts`` in [0, 1] of DreamTime's weight between low and high lie."""
    if high <= low:
        return torch.full_like(parts, low)
    edges = torch.linspace(low, high, _FINE + 1, dtype=torch.float64)
    weight = dreamtime((edges[1:] + edges[:-1]) / 2)
    below = torch.cat([torch.zeros(1), torch.cumsum(weight, 0)]) / weight.sum()
    wanted = parts.double().clamp(0, 1)
    cell = (torch.searchsorted(below, wanted, right=True) - 1).clamp(0, _FINE - 1)
    inside = (wanted - below[cell]) / (below[cell + 1] - below[cell])
    return (edges[cell] + inside * (edges[1] - edges[0])).to(parts)
