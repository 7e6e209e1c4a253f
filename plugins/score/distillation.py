"""What all scores share: noise levels, guidance, changes to an estimate, weighting, clipping; a loss of a gradient.

A score says one thing, its :meth:`Distillation.residual`: how far the latents are from where the prior wants them, in
units of x0. Everything else are modifiers, which therefore fit every score and every parametrisation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.contracts import Away, Context, Prior, Score, Step
from core.types import Condition, Render
from plugins.score.levels import Anneal, TimePrior, levels
from plugins.score.query import Query, repeated

Weighting = Literal["x0", "sds", "uniform", "fantasia3d"]


class DistillationConfig(BaseConfig):
    """Options of every score; a score with other published values restates them."""

    scale: float | Schedule = 7.5
    """Classifier-free guidance: uncond + scale (cond - uncond)."""
    low: Schedule = Schedule([(0, 0.02)])
    """Lowest noise level, a share of the process in [0, 1]."""
    high: Schedule = Schedule([(0, 0.98)])
    """Highest noise level; anneal it to sharpen details late."""
    anneal: Anneal = "none"
    """none draws levels between low and high; linear and sqrt go from high to low over the run, sqrt faster first."""
    time_prior: TimePrior = "uniform"
    """How levels are spread: uniform, or dreamtime (more in the middle; with anneal=linear, Huang et al. 2023)."""
    samples: int = Field(1, ge=1)
    """Draws of level and noise for each picture, averaged: less variance for as many more passes of the prior."""
    weighting: Weighting = "x0"
    """w(t): x0 gives x - x0_hat, sds s^2 (eps_hat - eps), uniform eps_hat - eps, fantasia3d a s^2 (eps_hat - eps)."""
    rescale: float = Field(0.0, ge=0, le=1)
    """Share of the guided x0's spread that is pulled back to the conditional one's (Lin et al. 2023, sec. 3.4)."""
    dynamic_threshold: float = Field(0.0, ge=0, le=1)
    """Share of x0's values, such as 0.995, that sets its range (Saharia et al. 2022, sec. 2.3); 0 is off."""
    threshold_range: float = Field(1.0, gt=0)
    """Range that dynamic thresholding brings x0 back to: 1 for pictures, about 4 for unit-variance latents."""
    clip: Schedule = Schedule([(0, 0.0)])
    """Largest absolute gradient of an element, 0 for none; let it grow to debias scores (Hong et al. 2023)."""

    @field_validator("low", "high")
    @classmethod
    def _share(cls, value: Schedule) -> Schedule:
        least, most = value.extent
        if least < 0 or most > 1:
            raise ValueError(f"expected noise levels in [0, 1], found {least if least < 0 else most:g}")
        return value

    @field_validator("clip")
    @classmethod
    def _bound(cls, value: Schedule) -> Schedule:
        if value.extent[0] < 0:
            raise ValueError(f"expected a bound of at least 0, found {value.extent[0]:g}")
        return value


class Distillation(Score):
    """Half the squared distance of the latents to a detached target, per picture."""

    Config = DistillationConfig

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.scale = Schedule.parse(options.scale)

    @abstractmethod
    def residual(self, q: Query) -> Tensor:
        """[B, C, h, w], the latents minus where they should go: (s_t / a_t) times the difference of noises."""

    def also(self, q: Query, latents: Tensor, residual: Tensor) -> Tensor | None:
        """A further loss, a scalar; ``latents`` with their gradient, ``residual`` averaged over the draws."""
        return None

    def loss(
        self,
        prior: Prior,
        latents: Tensor,
        condition: Condition,
        negative: Condition,
        step: Step,
        away: Sequence[Away] = (),
        render: Render | None = None,
    ) -> Tensor:
        q = self.query(prior, latents.detach(), condition, negative, step, away, render)
        gradient, residual = self._averaged(q)
        bound = self.options.clip.at(step.index, step.total)
        if bound:
            gradient = gradient.clamp(-bound, bound)
        step.log(**{f"{type(self).__name__.lower()}_norm": float(gradient.norm() / len(gradient) ** 0.5)})
        target = latents.detach() - gradient
        loss = 0.5 * (latents - target).square().sum() / len(latents)
        more = self.also(q, latents, residual)
        return loss if more is None else loss + more

    def gradient(
        self,
        prior: Prior,
        latents: Tensor,
        condition: Condition,
        negative: Condition,
        step: Step,
        away: Sequence[Away] = (),
        render: Render | None = None,
    ) -> Tensor:
        """[B, C, h, w], the score's gradient at ``latents``, before clipping."""
        return self._averaged(self.query(prior, latents, condition, negative, step, away, render))[0]

    def query(
        self, prior: Prior, latents: Tensor, condition: Condition, negative: Condition, step: Step,
        away: Sequence[Away] = (), render: Render | None = None,
    ) -> Query:  # fmt: skip
        """The step's levels and noises, and whom to ask; rows are repeated for each of ``samples``."""
        n = self.options.samples
        told, untold = repeated(condition, n), repeated(negative, n)
        others = [replace(a, condition=repeated(a.condition, n), weight=a.weight.repeat(n)) for a in away]
        latents = torch.cat([latents] * n)
        level = self.levels(len(latents), step).to(latents.device)
        noise = torch.randn(latents.shape, generator=step.generator("score-noise")).to(latents)
        scale = self.scale.at(step.index, step.total)
        return Query(prior, latents, told, untold, others, step, scale, self.options, level, noise, render)

    def levels(self, count: int, step: Step) -> Tensor:
        """[count] noise levels of a step."""
        o = self.options
        low, high = (s.at(step.index, step.total) for s in (o.low, o.high))
        return levels(count, low, max(low, high), step, o.anneal, o.time_prior)

    @torch.no_grad()
    def _averaged(self, q: Query) -> tuple[Tensor, Tensor]:
        residual, n = self.residual(q), self.options.samples
        gradient = residual * self._weight(q)
        return gradient.unflatten(0, (n, -1)).mean(0), residual.unflatten(0, (n, -1)).mean(0)

    def _weight(self, q: Query) -> Tensor | float:
        """What takes a residual in x0 to w(t) times a difference of noises."""
        kind: Weighting = self.options.weighting
        if kind == "x0":
            return 1.0
        return q.a / q.s * {"sds": q.s**2, "uniform": torch.ones_like(q.s), "fantasia3d": q.a * q.s**2}[kind]
