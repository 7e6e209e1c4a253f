"""What a score asks a prior: one noisy picture per row, and estimates of x0 under one condition or another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from core.contracts import Away, Prior, Step
from core.diffusion.guidance import combine, moving, predict_parts
from core.types import Condition, Render


@dataclass
class Query:
    """One step's question.

    Attributes:
        latents: [B, C, h, w], detached.  level: [B] noise levels.  noise: [B, C, h, w] standard normal.
        scale: of guidance.  options: the score's, whose ``rescale`` and ``dynamic_threshold`` change estimates.
        render: what the latents were made of, where the caller knows.
    """

    prior: Prior
    latents: Tensor
    condition: Condition
    negative: Condition
    away: Sequence[Away]
    step: Step
    scale: float
    options: Any
    level: Tensor
    noise: Tensor
    render: Render | None = None

    @cached_property
    def t(self) -> Tensor:
        """[B] timesteps."""
        return self.prior.process.timestep(self.level)

    @cached_property
    def noisy(self) -> Tensor:
        """[B, C, h, w] the latents under the noise."""
        return self.prior.process.add_noise(self.latents, self.noise, self.t)

    @property
    def a(self) -> Tensor:
        """a_t, shaped to multiply latents."""
        return self.prior.process.scales(self.t, self.latents)[0]

    @property
    def s(self) -> Tensor:
        """s_t, shaped to multiply latents."""
        return self.prior.process.scales(self.t, self.latents)[1]

    def guided(self, noisy: Tensor | None = None, t: Tensor | None = None, scale: float | None = None) -> Tensor:
        """x0 under guidance, rescaled and thresholded; by default of the step's own noisy latents and scale."""
        x, t = self.noisy if noisy is None else noisy, self.t if t is None else t
        scale, process = self.scale if scale is None else scale, self.prior.process
        away = moving(self.away, scale)
        if not away and scale in (0.0, 1.0):
            alone = self.condition if scale else self.negative
            return self._in_range(process.to_x0(self.prior.predict(x, t, alone), x, t))
        untold, told = predict_parts(self.prior, x, t, self.condition, self.negative, away)
        x0 = process.to_x0(combine(untold, told, scale), x, t)
        if self.options.rescale:
            plain = process.to_x0(told, x, t)
            within = tuple(range(1, x0.dim()))
            ratio = plain.std(within, keepdim=True) / x0.std(within, keepdim=True).clamp(min=1e-6)
            x0 = x0 * (1 + self.options.rescale * (ratio - 1))
        return self._in_range(x0)

    def parts(self, *others: Condition) -> list[Tensor]:
        """x0 of the noisy latents without and with the condition, the latter moved away from ``away``, and others."""
        outputs = predict_parts(self.prior, self.noisy, self.t, self.condition, self.negative, self.away, *others)
        return [self.prior.process.to_x0(output, self.noisy, self.t) for output in outputs]

    def leading_from(self, negative: Condition) -> Query:
        """The same question with another end of guidance."""
        return replace(self, negative=negative)

    def text(self, text: str) -> Condition:
        """The negative's condition with another text."""
        other = self.prior.condition([text] * len(self.latents))
        return replace(self.negative, text=other.text, pooled=other.pooled)

    def noise_of(self, x0: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise that goes with an estimate of x0."""
        a, s = self.prior.process.scales(t, noisy)
        return (noisy - a * x0) / s

    def stepped(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noisy latents at timesteps ``t`` taken to the query's own along ``noise``: one step of DDIM."""
        a, s = self.prior.process.scales(t, x)
        return self.prior.process.add_noise((x - s * noise) / a, noise, self.t)

    def _in_range(self, x0: Tensor) -> Tensor:
        share, limit = self.options.dynamic_threshold, self.options.threshold_range
        if not share:
            return x0
        size = torch.quantile(x0.flatten(1).abs(), share, 1).clamp(min=limit).view((-1,) + (1,) * (x0.dim() - 1))
        return x0.clamp(-size, size) * (limit / size)


def repeated(condition: Condition, count: int) -> Condition:
    """The rows of a condition ``count`` times, one whole after the other."""
    return condition if count == 1 else Condition.cat([condition] * count)
