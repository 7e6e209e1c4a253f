"""Score ``sds``: score distillation sampling, reparametrised so that its loss is a plain squared error.

Poole et al. 2022, eq. 3. The gradient in the latents is ``w(t) (eps_hat - eps)``; written with x0 it is
``w(t) a_t / s_t (x - x0_hat)``, so one target serves every parametrisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.contracts import Away, Context, Prior, Score, Step
from core.diffusion.guidance import predict_with_guidance
from core.types import Condition


class SDS(Score):
    """Half the squared distance of the latents to a detached target, per picture."""

    class Config(BaseConfig):
        scale: float | Schedule = 7.5
        """Classifier-free guidance: uncond + scale (cond - uncond)."""
        low: Schedule = Schedule([(0, 0.02)])
        """Lowest noise level, a share of the process in [0, 1]."""
        high: Schedule = Schedule([(0, 0.98)])
        """Highest noise level; anneal it to sharpen details late."""
        weighting: Literal["x0", "sds", "uniform"] = "x0"
        """w(t): x0 gives x - x0_hat, sds gives DreamFusion's s_t^2 (eps_hat - eps), uniform gives eps_hat - eps."""
        rescale: float = Field(0.0, ge=0, le=1)
        """Share of the guided x0's spread that is pulled back to the conditional one's (Lin et al. 2023, sec. 3.4)."""
        clip: float = Field(0.0, ge=0)
        """Largest absolute value of the gradient per element; 0 leaves it alone."""

        @field_validator("low", "high")
        @classmethod
        def _share(cls, value: Schedule) -> Schedule:
            least, most = value.extent
            if least < 0 or most > 1:
                raise ValueError(f"expected noise levels in [0, 1], found {least if least < 0 else most:g}")
            return value

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.scale = Schedule.parse(options.scale)

    def loss(
        self,
        prior: Prior,
        latents: Tensor,
        condition: Condition,
        negative: Condition,
        step: Step,
        away: Sequence[Away] = (),
    ) -> Tensor:
        gradient = self.gradient(prior, latents.detach(), condition, negative, step, away)
        if self.options.clip:
            gradient = gradient.clamp(-self.options.clip, self.options.clip)
        step.log(sds_norm=float(gradient.norm() / len(gradient) ** 0.5))
        target = latents.detach() - gradient
        return 0.5 * (latents - target).square().sum() / len(latents)

    @torch.no_grad()
    def gradient(
        self,
        prior: Prior,
        latents: Tensor,
        condition: Condition,
        negative: Condition,
        step: Step,
        away: Sequence[Away] = (),
    ) -> Tensor:
        """[B, C, h, w], the score's gradient at ``latents``."""
        process = prior.process
        t = process.timestep(self.levels(len(latents), step)).to(latents.device)
        noise = torch.randn(latents.shape, generator=step.generator("sds-noise")).to(latents)
        noisy = process.add_noise(latents, noise, t)
        scale = self.scale.at(step.index, step.total)
        output = predict_with_guidance(prior, noisy, t, condition, negative, scale, away)
        x0 = process.to_x0(output, noisy, t)
        if self.options.rescale:
            x0 = self._rescaled(prior, x0, noisy, t, condition)
        residual = latents - x0
        if self.options.weighting == "x0":
            return residual
        a, s = process.scales(t, latents)
        return residual * (a / s) * (s * s if self.options.weighting == "sds" else 1.0)

    def levels(self, count: int, step: Step) -> Tensor:
        """[B] noise levels, one in each of ``count`` equal parts of the range: fewer lucky and unlucky steps."""
        low, high = (s.at(step.index, step.total) for s in (self.options.low, self.options.high))
        generator = step.generator("sds-level")
        parts = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        return low + (max(high, low) - low) * parts

    def _rescaled(self, prior: Prior, x0: Tensor, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        plain = prior.process.to_x0(prior.predict(noisy, t, condition), noisy, t)
        ratio = plain.std((1, 2, 3), keepdim=True) / x0.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return x0 * (1 + self.options.rescale * (ratio - 1))
