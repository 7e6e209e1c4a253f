"""Score ``sdi``: score distillation via reparametrised DDIM (Lukoianov et al. 2024, eq. 12 and sec. 4.3).

SDS is a DDIM step whose noise is drawn anew each time. Here the noise is the one that DDIM would have used: the latents
are inverted up to t, with negative guidance, and the gradient is ``w(t) (eps(x_t; y) - kappa(x))``, that is
``x - x0_hat`` at the inverted x_t. The level falls over the run, as a sampler's does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pydantic import Field
from torch import Tensor

from core.config.schedule import Schedule
from core.diffusion.sampler import ddim_walk
from plugins.score.distillation import Distillation, DistillationConfig
from plugins.score.levels import Anneal
from plugins.score.query import Query


class SDI(Distillation):
    """Towards the guided estimate of x0 at the latents' own noisy version."""

    class Config(DistillationConfig):
        low: Schedule = Schedule([(0, 0.25)])
        """Lowest noise level, a share of the process in [0, 1]."""
        anneal: Anneal = "linear"
        """linear goes from high to low over the run, as published; sqrt faster at first; none draws levels."""
        inversion_steps: int = Field(10, ge=1)
        """Steps of an inversion up to level 1; a lower level takes its share of them."""
        inversion_scale: float = -7.5
        """Guidance of the inversion; minus the scale finds noise from which guidance leads back to the latents."""
        eta: float = Field(0.3, ge=0)
        """Noise added in each step of the inversion, in standard deviations of DDPM's."""

    def residual(self, q: Query) -> Tensor:
        count = max(1, math.ceil(float(q.level.max()) * self.options.inversion_steps - 1e-6))
        times = [q.prior.process.timestep(q.level * k / count) for k in range(count + 1)]
        estimate: Callable[[Tensor, Tensor], Tensor] = lambda x, t: q.guided(x, t, self.options.inversion_scale)  # noqa: E731
        generator = q.step.generator("sdi-inversion")
        x_t = ddim_walk(q.prior.process, estimate, q.latents, times, self.options.eta, generator)
        return q.latents - q.guided(x_t)
