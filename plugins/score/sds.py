"""Score ``sds``: score distillation sampling (DreamFusion, Poole et al. 2022, eq. 3).

The gradient in the latents is ``w(t) (eps_hat - eps)``; written with x0 it is ``w(t) a_t / s_t (x - x0_hat)``, so one
target serves every parametrisation.
"""

from __future__ import annotations

from torch import Tensor

from plugins.score.distillation import Distillation
from plugins.score.query import Query


class SDS(Distillation):
    """Towards the guided estimate of x0. DreamFusion's own values are scale 100 and weighting sds."""

    def residual(self, q: Query) -> Tensor:
        return q.latents - q.guided()
