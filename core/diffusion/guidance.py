"""Classifier-free guidance, defined once for every prior and score: ``uncond + scale (cond - uncond)``.

Ho & Salimans 2022. Scale 1 is the conditional model, 0 the unconditional one; a scale written in a configuration means
the same in every method.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.contracts import Prior
from core.types import Condition


def predict_with_guidance(
    prior: Prior, noisy: Tensor, t: Tensor, condition: Condition, negative: Condition, scale: float
) -> Tensor:
    """The guided prediction at ``noisy`` [B, C, h, w], in the prior's parametrisation; one pass over a doubled batch.

    Guidance is affine with weights that sum to 1, so applying it to noise, v or x0 predictions is the same thing.
    """
    if scale == 1.0:
        return prior.predict(noisy, t, condition)
    both = prior.predict(torch.cat([noisy, noisy]), torch.cat([t, t]), Condition.cat([negative, condition]))
    unconditional, conditional = both.chunk(2)
    return combine(unconditional, conditional, scale)


def combine(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """``uncond + scale (cond - uncond)``."""
    return unconditional + scale * (conditional - unconditional)
