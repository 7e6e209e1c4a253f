"""The exact diffusion model of a mixture of Gaussians in the plane, as latents [B, 2, 1, 1]; all in float64."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from core.contracts import Context, Prior
from core.diffusion.process import DiffusionProcess, FlowProcess
from core.types import Cameras, Condition

TEXTS = {"": [1.0, 1.0, 1.0], "right": [0.0, 1.0, 1.0], "top": [0.0, 0.0, 1.0], "left": [1.0, 0.0, 0.0]}
MEANS = torch.tensor([[-2.0, 0.0], [1.5, -1.0], [1.5, 1.5]], dtype=torch.float64)


class Mixture(Prior):
    """Texts choose among three modes; ``predict`` is the posterior mean in any parametrisation."""

    def __init__(self, kind: Any = "epsilon", variance: float = 0.09) -> None:
        super().__init__(None, Context())
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        bar = torch.cumprod(1 - betas, 0)
        self.process = FlowProcess() if kind == "flow" else DiffusionProcess(bar, kind)
        self.variance = variance
        self.rows = 0  # that predict was asked for
        self.decoded = 0

    @classmethod
    def space(cls, options: object, context: Context) -> tuple[int, int, int]:
        return 2, 1, 1

    def encode(self, rgb: Tensor) -> Tensor:
        return rgb[..., :2].movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded += len(latents)
        return torch.cat([latents, latents.sum(1, keepdim=True)], 1).movedim(1, -1)

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Any = None) -> Condition:
        weights = torch.tensor([TEXTS.get(t, [1.0, 0.5, 0.2]) for t in texts], dtype=torch.float64)
        return Condition(text=weights[:, None], pooled=weights / weights.sum(1, keepdim=True))

    def log_density(self, x: Tensor, a: Tensor, s: Tensor, weights: Tensor) -> Tensor:
        """[B] log p_t(x) up to a constant."""
        spread = (a**2 * self.variance + s**2)[:, 0]
        offset = x.flatten(1)[:, None] - a[:, :, :, 0] * MEANS
        return torch.logsumexp(weights.log() - offset.square().sum(2) / (2 * spread[:, :, 0]), 1)

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        a, s = self.process.scales(t, x)
        assert condition.pooled is not None
        spread = a**2 * self.variance + s**2
        offset = x.flatten(1)[:, None] - a[:, :, :, 0] * MEANS  # [B, K, 2]
        shares = (condition.pooled.log() - offset.square().sum(2) / (2 * spread[:, :, 0, 0])).softmax(1)
        means = MEANS + (a * self.variance / spread)[:, :, :, 0] * offset
        return (shares[:, :, None] * means).sum(1)[:, :, None, None]

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.rows += len(noisy)
        a, s = self.process.scales(t, noisy)
        x0 = self.posterior(noisy, t, condition)
        return self.process.target(x0, (noisy - a * x0) / s, t)


def told(prior: Mixture, count: int, text: str = "right", negative: str = "") -> tuple[Condition, Condition]:
    """The condition of a text and its opposite."""
    return prior.condition([text] * count), prior.condition([negative] * count)


def points(count: int, seed: int = 0) -> Tensor:
    """[count, 2, 1, 1] latents all over the plane."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64)


def samples(count: int, variance: float, shares: list[float], seed: int = 1) -> Tensor:
    """[count, 2] of the mixture."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)
    return MEANS[which] + math.sqrt(variance) * torch.randn(count, 2, generator=generator, dtype=torch.float64)
