"""One discrete diffusion process for every prior: noise levels, parametrisations and conversions between them.

``x_t = a_t x_0 + s_t eps`` with ``a_t = sqrt(alpha_bar_t)``, ``s_t = sqrt(1 - alpha_bar_t)`` (Ho et al. 2020, eq. 4).
A timestep is an integer in [0, T); a noise *level* is a share of T in [0, 1], as configurations write it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor, nn

from core.errors import UserError

Parametrization = Literal["epsilon", "v_prediction", "sample"]


class DiffusionProcess(nn.Module):
    """Schedule and parametrisation of a variance-preserving process.

    Args:
        alphas_cumprod: [T], decreasing, in (0, 1).
        parametrization: what the network's output is: the noise, v = a eps - s x0 (Salimans & Ho 2022), or x0.
    """

    alphas_cumprod: Tensor

    def __init__(self, alphas_cumprod: Tensor, parametrization: Parametrization = "epsilon") -> None:
        super().__init__()
        if parametrization not in get_args(Parametrization):
            raise UserError(
                f"parametrization '{parametrization}' is not one of {', '.join(get_args(Parametrization))}"
            )
        self.parametrization = parametrization
        # Float64 on the way in: 1 - alpha_bar of the first steps loses half its digits in float32.
        self.register_buffer("alphas_cumprod", alphas_cumprod.double(), persistent=False)

    @classmethod
    def from_scheduler(cls, scheduler: Any) -> DiffusionProcess:
        """The process of any diffusers scheduler with ``alphas_cumprod`` (DDPM, DDIM, PNDM, DPM-Solver …)."""
        return cls(scheduler.alphas_cumprod, scheduler.config.get("prediction_type", "epsilon"))

    @property
    def steps(self) -> int:
        """T, the number of timesteps."""
        return int(self.alphas_cumprod.shape[0])

    def timestep(self, level: Tensor) -> Tensor:
        """Levels in [0, 1] to int64 timesteps in [0, T - 1]."""
        return (level * self.steps).long().clamp(0, self.steps - 1)

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``(a_t, s_t)`` of timesteps ``t`` [B] (or [B, V]), shaped to multiply ``like``."""
        alpha_bar = self.alphas_cumprod.to(like.device)[t]
        shape = t.shape + (1,) * (like.dim() - t.dim())
        return alpha_bar.sqrt().to(like.dtype).view(shape), (1 - alpha_bar).sqrt().to(like.dtype).view(shape)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """A sample of q(x_t | x_0)."""
        a, s = self.scales(t, x0)
        return a * x0 + s * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should answer at x_t."""
        a, s = self.scales(t, x0)
        return {"epsilon": noise, "v_prediction": a * noise - s * x0, "sample": x0}[self.parametrization]

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0 in a network's output."""
        a, s = self.scales(t, x_t)
        if self.parametrization == "sample":
            return output
        if self.parametrization == "v_prediction":
            return a * x_t - s * output
        return (x_t - s * output) / a

    def to_noise(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate of the noise in a network's output."""
        a, s = self.scales(t, x_t)
        if self.parametrization == "epsilon":
            return output
        if self.parametrization == "v_prediction":
            return a * output + s * x_t
        return (x_t - a * output) / s
