"""Sampling: noise taken to sets of Gaussians, freely or led by what given views show.

View guidance: the estimate of the clean set is rendered from the given cameras, and the gradient of the rendering's
error moves it. By default the gradient is the noisy set's, through the denoiser (Chung et al. 2023, "Diffusion
Posterior Sampling"), so that the prior decides what else has to move; the estimate's own gradient is the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.diffusion.process import DiffusionProcess
from core.types import Cameras
from plugins.gsd.fitting import mismatch

Estimate = Callable[[Tensor, Tensor], Tensor]
"""x0 [B, K, 16] at noisy tokens [B, K, 16] and timesteps [B]."""
CLAMP = 3.5
"""Whitened tokens stay within so many deviations."""


class ViewConfig(BaseConfig):
    """How given views lead."""

    scale: float = Field(default=8.0, ge=0)
    """Size of a guiding step, in tenths of a deviation at full noise; 0 does not look at the views."""
    through: Literal["noisy", "estimate"] = "noisy"
    """Whose gradient: the noisy set's, through the denoiser, or the estimate's own."""
    inner: int = Field(default=1, ge=1)
    """Guiding steps at each timestep; further ones move the estimate alone."""
    size: int = Field(default=32, ge=8)
    """Side in pixels at which views are compared."""


@dataclass(frozen=True)
class Given:
    """Views that are to be matched: V cameras, ``rgb`` [V, H, W, 3] over grey, ``mask`` [V, H, W, 1] or None."""

    cameras: Cameras
    rgb: Tensor
    mask: Tensor | None = None

    def joined(self, other: Given, weight: float) -> tuple[Given, Tensor]:
        """Both, without masks, and the weight of each view: ``weight`` for these, 1 for the others."""
        cameras = Cameras.cat([self.cameras, other.cameras])
        shares = torch.cat([torch.full((len(self.rgb),), weight), torch.ones(len(other.rgb))]).to(self.rgb)
        return Given(cameras, torch.cat([self.rgb, other.rgb])), shares


def led(
    estimate: Estimate, in_world: Callable[[Tensor], Tensor], process: DiffusionProcess, given: Given,
    config: ViewConfig, losses: list[float] | None = None,
) -> Estimate:  # fmt: skip
    """``estimate``, moved against the gradient of the rendering's error; each sample's gradient is brought to unit root
    mean square, and the step shrinks with the noise.

    Args:
        in_world: whitened tokens to world ones.
        losses: receives the mean error before each timestep's move.
    """

    def errors(x0: Tensor) -> Tensor:
        return torch.stack([mismatch(one, given.cameras, given.rgb, given.mask) for one in in_world(x0)])

    def moved(x0: Tensor, gradient: Tensor, t: Tensor) -> Tensor:
        size = gradient.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-12)
        _, noise = process.scales(t, x0)
        return (x0 - 0.1 * config.scale * noise * gradient / size).clamp(-CLAMP, CLAMP).detach()

    def guided(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            noisy = x.detach().requires_grad_()
            x0 = estimate(noisy, t)
            error = errors(x0)
            (gradient,) = torch.autograd.grad(error.sum(), noisy if config.through == "noisy" else x0)
        if losses is not None:
            losses.append(float(error.detach().mean()))
        x0 = moved(x0.detach(), gradient, t)
        for _ in range(config.inner - 1):
            with torch.enable_grad():
                free = x0.requires_grad_()
                (gradient,) = torch.autograd.grad(errors(free).sum(), free)
            x0 = moved(free.detach(), gradient, t)
        return x0

    return guided if config.scale else estimate


@torch.no_grad()
def walk(
    process: DiffusionProcess, estimate: Estimate, start: Tensor, times: Sequence[Tensor], eta: float,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """``start`` at timestep ``times[0]`` [B] denoised over ``times``, falling: DDIM (Song et al. 2021, eq. 12) where
    ``eta`` is 0, the ancestral sampler of DDPM where it is 1 (eq. 16). Returns the last estimate."""
    x = start
    for now, after in pairwise(times):
        (a, s), (a_after, s_after) = process.scales(now, x), process.scales(after, x)
        x0 = estimate(x, now)
        added = eta * s_after / s * (1 - (a / a_after) ** 2).clamp(min=0).sqrt()
        x = a_after * x0 + (s_after**2 - added**2).clamp(min=0).sqrt() * (x - a * x0) / s
        if eta:
            x = x + added * torch.randn(x.shape, generator=generator).to(x)
    return estimate(x, times[-1])
