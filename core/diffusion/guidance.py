"""Classifier-free guidance, defined once for every prior and score: ``uncond + scale (cond - uncond)``.

Ho & Salimans 2022. Scale 1 is the conditional model, 0 the unconditional one; a scale written in a configuration means
the same in every method. Perp-Neg adds directions to move away from, without what they share with the wanted one; a
second guidance moves both ends, so that three-way guidance (Brooks et al. 2023, eq. 3) is the same one formula:
``none + image_scale (image - none) + scale (both - image)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.contracts import Away, Prior
from core.types import Condition


def predict_with_guidance(
    prior: Prior,
    noisy: Tensor,
    t: Tensor,
    condition: Condition,
    negative: Condition,
    scale: float,
    away: Sequence[Away] = (),
) -> Tensor:
    """The guided prediction at ``noisy`` [B, C, h, w], in the prior's parametrisation; one pass over a longer batch.

    Guidance is affine with weights that sum to 1, so applying it to noise, v or x0 predictions is the same thing.
    ``away`` lists what to move away from (Perp-Neg, Armandpour et al. 2023, eq. 6).
    """
    away = moving(away, scale)
    if not away and scale in (0.0, 1.0):
        return prior.predict(noisy, t, condition if scale else negative)
    unconditional, conditional = predict_parts(prior, noisy, t, condition, negative, away)
    return combine(unconditional, conditional, scale)


def moving(away: Sequence[Away], scale: float) -> Sequence[Away]:
    """Those of ``away`` that change a prediction guided with ``scale``: at 0 the told end does not count, so only those
    that move both ends do."""
    return away if scale else [a for a in away if a.both]


def predict_parts(
    prior: Prior, noisy: Tensor, t: Tensor, condition: Condition, negative: Condition, away: Sequence[Away] = (),
    *others: Condition,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The unconditional prediction, the conditional one, moved away from ``away``, and those under ``others``."""
    told = [negative, condition, *(a.condition for a in away), *others]
    unconditional, conditional, *rest = predict_each(prior, noisy, t, told)
    wanted, end = conditional - unconditional, unconditional
    for other, where in zip(rest, away, strict=False):
        weight = where.weight.to(wanted).view(-1, *(1,) * (wanted.dim() - 1))
        if where.both:
            shift = weight * (end - other)
            unconditional, conditional = unconditional + shift, conditional + shift
        else:
            conditional = conditional - weight * perpendicular(other - end, wanted)
    return unconditional, conditional, *rest[len(away) :]


def predict_each(prior: Prior, noisy: Tensor, t: Tensor, told: Sequence[Condition]) -> tuple[Tensor, ...]:
    """The prediction under each condition; one pass over a longer batch."""
    n = len(told)
    return prior.predict(torch.cat([noisy] * n), torch.cat([t] * n), Condition.cat(list(told))).chunk(n)


def combine(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """``uncond + scale (cond - uncond)``."""
    return unconditional + scale * (conditional - unconditional)


def perpendicular(vector: Tensor, to: Tensor) -> Tensor:
    """Each ``vector`` [B, ...] without its component along ``to`` [B, ...]."""
    a, b = vector.flatten(1), to.flatten(1)
    share = (a * b).sum(1) / b.square().sum(1).clamp(min=1e-12)
    return vector - share.view(-1, *(1,) * (vector.dim() - 1)) * to
