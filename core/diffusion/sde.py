"""Linear stochastic differential equations over continuous time, for score models of latents.

``dz = f(t) z dt + g(t) dw`` with t in [0, 1] has ``z_t = a_t z_0 + s_t noise`` (Song et al. 2021, "Score-Based
Generative Modeling through SDEs"; Vahdat et al. 2021, "Score-based Generative Modeling in Latent Space", appendix B).
Latents have any shape [B, ...]; a time is [B]. Networks that were published for these equations are told ``1000 t``.

How a score model is trained on them is in :mod:`core.diffusion.sde_objective`, how it is sampled and how likely it
finds something in :mod:`core.diffusion.sde_sampler`, its parametrisation in :mod:`core.diffusion.mixed`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.config.base import Config

NoiseModel = Callable[[Tensor, Tensor], Tensor]
"""Predicts the noise in latents [B, ...] at times [B]; the score is minus it over s_t."""


class SDE(ABC):
    """A linear SDE.

    Args:
        start: least time that a network is trained at, where s_t is not 0.
    """

    def __init__(self, start: float) -> None:
        self.start = start

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """f(t)."""

    @abstractmethod
    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """a_t, how much of z_0 is left."""

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """s_t^2, the variance of z_t given z_0."""

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``(a_t, s_t)`` at times ``t`` [B], shaped to multiply ``like`` [B, ...]."""
        return shaped(self.alpha(t), like), shaped(self.variance(t).sqrt(), like)

    def add_noise(self, z0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """A sample of q(z_t | z_0)."""
        a, s = self.scales(t, z0)
        return a * z0 + s * noise

    def unit_noise(self, z_t: Tensor, t: Tensor) -> Tensor:
        """The best prediction of the noise if z_0 were N(0, I): ``s_t z_t`` where variance is preserved."""
        a, s = self.scales(t, z_t)
        return s / (a.square() + s.square()) * z_t

    def unit_error(self, t: Tensor) -> Tensor:
        """The mean squared error of :meth:`unit_noise` per number, if z_0 were so: ``1 - s_t^2``."""
        power = self.alpha(t).square()
        return power / (power + self.variance(t))

    @property
    def end_std(self) -> float:
        """Standard deviation of z_1 that samplers start from: that of N(0, I) taken to the end."""
        one = torch.ones((), dtype=torch.float64)
        return math.sqrt(float(self.alpha(one).square() + self.variance(one)))

    def end_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Where samplers start, on the CPU."""
        return self.end_std * torch.randn(shape, generator=generator)


class VPSDE(SDE):
    """Variance preserving, with a rate that grows linearly: ``f = -b/2``, ``g^2 = b``, ``b = b_0 + (b_1 - b_0) t``."""

    def __init__(self, beta_first: float = 0.1, beta_last: float = 20.0, start: float = 0.01) -> None:
        super().__init__(start)
        self.beta_first, self.beta_last = beta_first, beta_last

    def rate(self, t: Tensor) -> Tensor:
        """b(t)."""
        return self.beta_first + (self.beta_last - self.beta_first) * t

    def elapsed(self, t: Tensor) -> Tensor:
        """The integral of b from 0 to t."""
        return self.beta_first * t + 0.5 * (self.beta_last - self.beta_first) * t.square()

    def drift(self, t: Tensor) -> Tensor:
        return -0.5 * self.rate(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return self.rate(t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.elapsed(t))

    def variance(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.elapsed(t))


class SubVPSDE(VPSDE):
    """As :class:`VPSDE` with less noise: ``g^2 = b (1 - exp(-2 B))``, so ``s = 1 - exp(-B)``, B the integral of b."""

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return -self.rate(t) * torch.expm1(-2 * self.elapsed(t))

    def variance(self, t: Tensor) -> Tensor:
        return super().variance(t).square()


class GeometricVPSDE(SDE):
    """Variance preserving, with a variance that grows geometrically: ``s^2 = v_0 (v_1 / v_0)^t``.

    At time 0 a little noise is there already, so that training may start at 0 and the likelihood's weight is constant
    in t but for a factor ``1 / (1 - s^2)``.
    """

    def __init__(self, least: float = 3e-5, largest: float = 0.999, start: float = 0.0) -> None:
        super().__init__(start)
        self.least, self.ratio = least, math.log(largest / least)

    def drift(self, t: Tensor) -> Tensor:
        return -0.5 * self.diffusion_squared(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        variance = self.variance(t)
        return variance * self.ratio / (1 - variance)

    def alpha(self, t: Tensor) -> Tensor:
        return (1 - self.variance(t)).sqrt()

    def variance(self, t: Tensor) -> Tensor:
        return self.least * torch.exp(self.ratio * t)


class VESDE(SDE):
    """Variance exploding: no drift, ``s^2 = v_0 (v_1 / v_0)^t``."""

    def __init__(self, least: float = 3e-5, largest: float = 2500.0, start: float = 0.0) -> None:
        super().__init__(start)
        self.least, self.ratio = least, math.log(largest / least)

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return self.ratio * self.variance(t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def variance(self, t: Tensor) -> Tensor:
        return self.least * torch.exp(self.ratio * t)


class SdeConfig(Config):
    """Which process adds the noise."""

    type: Literal["vp", "geometric", "sub-vp", "ve"] = "vp"
    """Variance preserving with a linear rate; preserving with a geometric variance; sub-VP; variance exploding."""
    first: float | None = Field(default=None, gt=0)
    """Rate (vp, sub-vp) or variance (geometric, ve) at time 0; the published value where not given."""
    last: float | None = Field(default=None, gt=0)
    """Rate or variance at time 1; the published value where not given."""
    start: float | None = Field(default=None, ge=0, lt=1)
    """Least time of training; 0.01 of vp and sub-vp, 0 of the others where not given."""

    def build(self) -> SDE:
        """The process."""
        made: Any = {"vp": VPSDE, "geometric": GeometricVPSDE, "sub-vp": SubVPSDE, "ve": VESDE}[self.type]
        names = ("beta_first", "beta_last") if issubclass(made, VPSDE) else ("least", "largest")
        given = dict(zip((*names, "start"), (self.first, self.last, self.start), strict=True))
        return made(**{name: value for name, value in given.items() if value is not None})


def shaped(value: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...], in the precision and on the device of ``like`` [B, ...]."""
    return value.to(like).view(value.shape + (1,) * (like.dim() - value.dim()))
