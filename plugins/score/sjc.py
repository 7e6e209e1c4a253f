"""Score ``sjc``: Score Jacobian Chaining (Wang et al. 2023).

Perturb and average, eq. 9: the score of a clean z is taken as that of z + sigma n, averaged over n, with D the prior's
denoiser: ``(D(z + sigma n; sigma) - z) / sigma^2`` after the noise, whose mean is 0, is left out
(``variance_reduction``), else ``(D - (z + sigma n)) / sigma^2``. In a process with a and s, sigma is s / a, and the
published weight sigma makes the first one ``eps_hat - eps``: SDS with uniform weighting. Without reduction it is
``eps_hat`` alone.
"""

from __future__ import annotations

from torch import Tensor

from core.config.schedule import Schedule
from plugins.score.distillation import Distillation, DistillationConfig, Weighting
from plugins.score.query import Query


class SJC(Distillation):
    """Towards the denoised picture, from the latents or from the noisy ones; more ``samples`` average more."""

    class Config(DistillationConfig):
        scale: float | Schedule = 100.0
        """Classifier-free guidance: uncond + scale (cond - uncond)."""
        low: Schedule = Schedule([(0, 0.01)])
        """Lowest noise level, a share of the process in [0, 1]."""
        high: Schedule = Schedule([(0, 0.97)])
        """Highest noise level."""
        weighting: Weighting = "uniform"
        """w(t), of the difference of noises; uniform is the published one."""
        variance_reduction: bool = True
        """Leave out the noise that was added, whose mean is 0."""

    def residual(self, q: Query) -> Tensor:
        perturbed = q.latents if self.options.variance_reduction else q.noisy / q.a
        return perturbed - q.guided()
