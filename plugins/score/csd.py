"""Score ``csd``: classifier score distillation (Yu et al. 2023).

Only what guidance adds to SDS, eq. 6: ``w(t) (eps(x_t; y) - eps(x_t))``. With a negative prompt, eq. 11:
``eps(x_t; y) - (1 - n) eps(x_t) - n eps(x_t; y_neg)``, where n is annealed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.config.schedule import Schedule
from plugins.score.distillation import Distillation, DistillationConfig, Weighting
from plugins.score.query import Query


class CSD(Distillation):
    """From what any text, or the negative one, looks like towards what this text does."""

    class Config(DistillationConfig):
        scale: float | Schedule = 1.0
        """Multiplies the difference; there is nothing else that it could be a guidance scale of."""
        high: Schedule = Schedule([(0, 0.98), (5000, 0.98), (5001, 0.5)])
        """Highest noise level."""
        weighting: Weighting = "uniform"
        """w(t), of the difference of noises; uniform is the published one."""
        negative_weight: Schedule = Schedule([(0, 0.0), (5000, 1.0)])
        """Share of the negative prompt, where there is one, in what is led away from; the rest is the empty text."""

    def residual(self, q: Query) -> Tensor:
        share, empty = self.options.negative_weight.at(q.step.index, q.step.total), q.text("")
        if share == 1.0 or _same(empty.text, q.negative.text):
            start, told = q.parts()
        elif share == 0.0:
            start, told = q.leading_from(empty).parts()
        else:
            nothing, told, negative = q.leading_from(empty).parts(q.negative)
            start = nothing + share * (negative - nothing)
        return q.scale * (start - told)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))
