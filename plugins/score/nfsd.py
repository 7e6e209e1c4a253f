"""Score ``nfsd``: noise-free score distillation (Katzir et al. 2023, eq. 6 to 8).

The prediction is taken apart: towards the text, ``delta_C = eps(x_t; y) - eps(x_t)``, and towards the domain of
pictures, ``delta_D``, which is ``eps(x_t)`` where there is little noise (t < 200 of 1000) and elsewhere ``eps(x_t) -
eps(x_t; y_neg)``, y_neg naming what no picture should be. The gradient is ``w(t) (delta_D + scale delta_C)``, without
the noise of SDS.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from plugins.score.distillation import Distillation, DistillationConfig, Weighting
from plugins.score.query import Query

UNWANTED = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"  # sec. 4.2
)


class NFSD(Distillation):
    """Towards the text and away from bad pictures; the job's negative prompt stands in for the empty text."""

    class Config(DistillationConfig):
        weighting: Weighting = "sds"
        """w(t), of the sum of noises."""
        unwanted: str = UNWANTED
        """What the domain's direction leads away from."""
        little_noise: float = Field(0.2, ge=0, le=1)
        """Noise level below which a prediction of the noise needs no correction."""

    def residual(self, q: Query) -> Tensor:
        untold, told, unwanted = q.parts(q.text(self.options.unwanted))
        little = (q.level < self.options.little_noise).view((-1,) + (1,) * (told.dim() - 1))
        domain = torch.where(little, q.noisy / q.a - untold, unwanted - untold)
        return domain + q.scale * (untold - told)
