"""Score ``flow``: rectified-flow distillation (Yang et al. 2024, "Rectified Flow as Plug-and-Play Priors", RFDS).

With ``x_t = (1 - t) x + t eps`` and the velocity ``u = eps - x``, the gradient is ``w(t) (u_hat(x_t; y) - (eps - x))``,
what remains of the flow-matching loss without the network's Jacobian. In x0 it is ``(x - x0_hat) (a + s) / s``: so it
is defined for any process, and lies between the weightings x0 (much noise) and uniform (little).
"""

from __future__ import annotations

from torch import Tensor

from core.config.schedule import Schedule
from plugins.score.distillation import Distillation, DistillationConfig
from plugins.score.query import Query


class Flow(Distillation):
    """Towards the guided velocity. Any other score runs on a flow prior too: the parametrisation is the process's."""

    class Config(DistillationConfig):
        scale: float | Schedule = 50.0
        """Classifier-free guidance: uncond + scale (cond - uncond)."""

    def residual(self, q: Query) -> Tensor:
        return (q.latents - q.guided()) * (q.a + q.s) / q.s
