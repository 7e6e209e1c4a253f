"""Proposal sampling: where along a ray the next samples go, and how a proposal learns from what they found.

Barron et al. 2022 ("Mip-NeRF 360"), section 3. A histogram has fences [R, n + 1], rising along each of R rays, and
weights [R, n] >= 0 of the intervals between them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Step
from core.types import Render

_TINY = 1e-7


@torch.no_grad()
def resample(fences: Tensor, weights: Tensor, count: int, jitter: Tensor | None = None, spread: float = 0.0) -> Tensor:
    """[R, count + 1] fences between the same ends, with an equal share of the weight in each of ``count`` intervals.

    Args:
        jitter: [R] in [0, 1), moves all inner fences of a ray by up to half an interval of weight; None by nothing.
        spread: share of the weight that is laid out evenly along the ray first, in [0, 1]; a ray without weight is
            even altogether.
    """
    lengths = fences.diff(dim=-1)
    even = lengths / lengths.sum(-1, keepdim=True).clamp(min=_TINY)
    total = weights.sum(-1, keepdim=True)
    share = torch.where(total > _TINY, (1 - spread) * weights / total.clamp(min=_TINY) + spread * even, even)
    below = F.pad(share.cumsum(-1), (1, 0))
    below = below / below[:, -1:].clamp(min=_TINY)
    shift: Tensor | float = 0.0 if jitter is None else jitter[:, None] - 0.5
    wanted = torch.arange(count + 1, device=fences.device).to(fences).expand(len(fences), -1) + shift
    wanted = (wanted / count).clamp(0, 1)
    wanted[:, 0], wanted[:, -1] = 0.0, 1.0
    place = torch.searchsorted(below[:, 1:-1].contiguous(), wanted, right=True)
    low, high = below.gather(1, place), below.gather(1, place + 1)
    along = ((wanted - low) / (high - low).clamp(min=_TINY)).clamp(0, 1)
    found = fences.gather(1, place) + along * lengths.gather(1, place)
    found[:, 0], found[:, -1] = fences[:, 0], fences[:, -1]
    return found.cummax(-1).values  # rounding may swap two that coincide


def bound(fences: Tensor, weights: Tensor, inner: Tensor) -> Tensor:
    """[R, m] for intervals between the fences ``inner`` [R, m + 1] the sum of the weights of all intervals that they
    overlap (eq. 12): the most that a histogram of the same ray may have there. Differentiable in the weights."""
    below = F.pad(weights.cumsum(-1), (1, 0))
    first = torch.searchsorted(fences.contiguous(), inner[:, :-1].contiguous(), right=True) - 1
    last = torch.searchsorted(fences.contiguous(), inner[:, 1:].contiguous())
    first = first.clamp(0, weights.shape[1])
    last = torch.maximum(last.clamp(0, weights.shape[1]), first)
    return below.gather(1, last) - below.gather(1, first)


def excess(fences: Tensor, weights: Tensor, inner: Tensor, found: Tensor) -> Tensor:
    """[R] the sum over ``found`` [R, m] of max(0, w - bound)^2 / w (eq. 13): 0 where the proposal allows for all that
    was found. Moves the proposal's ``weights`` alone."""
    found = found.detach()
    over = (found - bound(fences, weights, inner)).clamp(min=0)
    return (over.square() / (found + _TINY)).sum(-1)


def interlevel(render: Render, step: Step) -> Tensor:
    """The loss ``interlevel``: mean over rays of :func:`excess`, summed over rounds of proposals."""
    return render.extras["interlevel"].mean()
