"""Score ``ism``: interval score matching (LucidDreamer, Liang et al. 2023, eq. 17).

The latents are taken to the level s, and from there to t, by DDIM inversion without the text; the gradient is
``w(t) (eps(x_t, t; y) - eps(x_s, s))`` over the interval t - s. No noise is drawn: x_t belongs to these latents, so the
target does not change from draw to draw as that of SDS does.
"""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor

from core.config.schedule import Schedule
from core.diffusion.sampler import ddim_walk
from plugins.score.distillation import Distillation, DistillationConfig
from plugins.score.query import Query


class ISM(Distillation):
    """From the noise that leads to the latents towards the noise that the text expects, one interval above."""

    class Config(DistillationConfig):
        high: Schedule = Schedule([(0, 0.98), (1500, 0.5)])
        """Highest noise level."""
        delta_t: float = Field(0.05, gt=0, le=1)
        """The interval t - s, a share of the process (50 of 1000 steps)."""
        delta_s: float = Field(0.2, gt=0, le=1)
        """Longest step of the inversion up to s, a share of the process (200 of 1000 steps)."""
        inversion_scale: float = 0.0
        """Guidance of the inversion: 0 hears no text, 1 the text."""

    def residual(self, q: Query) -> Tensor:
        process, lower = q.prior.process, (q.level - self.options.delta_t).clamp(min=0)
        count = max(1, math.ceil(float(lower.max()) / self.options.delta_s - 1e-6))
        times = [process.timestep(lower * k / count) for k in range(count + 1)]

        def estimate(x: Tensor, t: Tensor) -> Tensor:
            return q.guided(x, t, self.options.inversion_scale)

        x_s = ddim_walk(process, estimate, q.latents, times)
        noise_s = q.noise_of(estimate(x_s, times[-1]), x_s, times[-1])
        x_t = q.stepped(x_s, noise_s, times[-1])
        return (q.noise_of(q.guided(x_t), x_t, q.t) - noise_s) * q.s / q.a
