"""The diffusion process of every prior: noise levels, parametrisations and conversions between them.

``x_t = a_t x_0 + s_t eps`` with ``a_t = sqrt(alpha_bar_t)``, ``s_t = sqrt(1 - alpha_bar_t)`` (Ho et al. 2020, eq. 4),
or, for rectified flows, ``a_t = 1 - t``, ``s_t = t`` (Liu et al. 2022; Esser et al. 2024).
A timestep is an integer in [0, T), of a flow a number in (0, 1); a noise *level* is a share of the process in [0, 1],
as configurations write it.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from core.errors import UserError

Parametrization = Literal["epsilon", "v_prediction", "sample", "flow"]


class DiffusionProcess(nn.Module):
    """Schedule and parametrisation of a variance-preserving process.

    Args:
        alphas_cumprod: [T], decreasing, in (0, 1).
        parametrization: what the network's output is: the noise, v = a eps - s x0 (Salimans & Ho 2022), x0, or the
            flow's velocity eps - x0.
    """

    alphas_cumprod: Tensor

    def __init__(self, alphas_cumprod: Tensor, parametrization: Parametrization = "epsilon") -> None:
        super().__init__()
        if parametrization not in get_args(Parametrization):
            raise UserError(f"parametrization '{parametrization}' is not one of {', '.join(get_args(Parametrization))}")
        self.parametrization = parametrization
        # Float64 on the way in: 1 - alpha_bar of the first steps loses half its digits in float32.
        self.register_buffer("alphas_cumprod", alphas_cumprod.double(), persistent=False)

    @classmethod
    def from_scheduler(cls, scheduler: Any, tokens: int | None = None) -> DiffusionProcess:
        """The process of any diffusers scheduler with ``alphas_cumprod`` (DDPM, DDIM, PNDM, DPM-Solver …), or of one
        that matches flows.

        Args:
            tokens: of a picture, where a flow's shift depends on them (FLUX).
        """
        config = scheduler.config
        kind = config.get("prediction_type", "epsilon")
        if not hasattr(scheduler, "alphas_cumprod") or kind == "flow_prediction":
            return FlowProcess(flow_shift(config, tokens))
        return cls(scheduler.alphas_cumprod, kind)

    @property
    def steps(self) -> int:
        """T, the number of timesteps."""
        return int(self.alphas_cumprod.shape[0])

    def timestep(self, level: Tensor) -> Tensor:
        """Levels in [0, 1] to int64 timesteps in [0, T - 1]."""
        return (level * self.steps).long().clamp(0, self.steps - 1)

    def times(self, steps: int, first: Tensor | float | None = None) -> list[Tensor]:
        """``steps`` timesteps (scalars) at equal distances for a sampler, from ``first`` or the last one down."""
        start = self.steps - 1 if first is None else int(first)
        return list(torch.linspace(start, 0, steps).round().long())

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
        if self.parametrization == "v_prediction":
            a, s = self.scales(t, x0)
            return a * noise - s * x0
        return {"epsilon": noise, "sample": x0, "flow": noise - x0}[self.parametrization]

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0 in a network's output."""
        if self.parametrization == "sample":
            return output
        a, s = self.scales(t, x_t)
        if self.parametrization == "v_prediction":
            return a * x_t - s * output
        return (x_t - s * output) / (a + s if self.parametrization == "flow" else a)

    def to_noise(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate of the noise in a network's output."""
        if self.parametrization == "epsilon":
            return output
        a, s = self.scales(t, x_t)
        if self.parametrization == "v_prediction":
            return a * output + s * x_t
        return (x_t + a * output) / (a + s) if self.parametrization == "flow" else (x_t - a * output) / s


class FlowProcess(DiffusionProcess):
    """A rectified flow: ``x_t = (1 - t) x_0 + t eps``; by default the network answers with the velocity eps - x0.

    Args:
        shift: timesteps are ``shift l / (1 + (shift - 1) l)`` of levels l: more noise for larger pictures (Esser et al.
            2024, eq. 23; 3 in Stable Diffusion 3).
    """

    edge = 1e-3
    """Timesteps stay this far from 0 and 1, where no noise or no picture is left."""

    def __init__(self, shift: float = 1.0, parametrization: Parametrization = "flow") -> None:
        super().__init__(torch.ones(1), parametrization)
        self.shift = shift

    @property
    def steps(self) -> int:
        """What trained networks divide t by; 1000 in all that are published."""
        return 1000

    def timestep(self, level: Tensor) -> Tensor:
        """Levels in [0, 1] to timesteps in (0, 1)."""
        return (self.shift * level / (1 + (self.shift - 1) * level)).clamp(self.edge, 1 - self.edge)

    def times(self, steps: int, first: Tensor | float | None = None) -> list[Tensor]:
        if first is not None:  # levels again, so that the steps are as dense as the shift wants them
            first = first / (self.shift - (self.shift - 1) * first)
        levels = torch.linspace(1.0 if first is None else float(first), 0, steps + 1)[:-1]
        return list(self.timestep(levels))

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        s = t.to(like).view(t.shape + (1,) * (like.dim() - t.dim()))
        return 1 - s, s


def flow_shift(config: Any, tokens: int | None = None) -> float:
    """The shift in a flow scheduler's configuration.

    Where it depends on the picture's ``tokens``, its logarithm is linear in them between two given points.
    """
    if not config.get("use_dynamic_shifting") or tokens is None:
        return float(config.get("shift") or config.get("flow_shift") or 1.0)
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return math.exp(low + (high - low) * (tokens - few) / (many - few))
