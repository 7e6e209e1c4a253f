"""One deterministic sampling loop for every prior (DDIM, Song et al. 2021, eq. 12 with eta 0), and its steps alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from core.contracts import Away, Prior
from core.diffusion.guidance import predict_with_guidance
from core.diffusion.process import DiffusionProcess
from core.types import Condition


@torch.no_grad()
def ddim_latents(
    prior: Prior,
    start: Tensor,
    condition: Condition,
    negative: Condition,
    scale: float,
    steps: int,
    first: Tensor | float | None = None,
    away: Sequence[Away] = (),
    times: Sequence[Tensor] | None = None,
) -> Tensor:
    """From ``start`` [B, C, h, w] to latents, over ``steps`` timesteps at equal distances from ``first`` (a scalar), or
    over the given ``times``."""
    process, x = prior.process, start
    times = process.times(steps, first) if times is None else times
    for now, after in zip(times, [*times[1:], None], strict=True):
        t = now.to(x.device).expand(len(x))
        output = predict_with_guidance(prior, x, t, condition, negative, scale, away)
        x0, noise = process.to_x0(output, x, t), process.to_noise(output, x, t)
        x = x0 if after is None else process.add_noise(x0, noise, after.to(x.device).expand(len(x)))
    return x


@torch.no_grad()
def ddim_walk(
    process: DiffusionProcess,
    estimate: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    times: Sequence[Tensor],
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``start`` [B, C, h, w] at timesteps ``times[0]`` [B] taken to ``times[-1]``, up (inversion) or down.

    Args:
        estimate: gives x0 at noisy latents and timesteps.
        eta: in steps upwards, how many times the standard deviation of ``q(x_now | x_next, x0)`` is added as noise.
        generator: draws that noise.
    """
    x = start
    for now, after in pairwise(times):
        (a, s), (a_after, s_after) = process.scales(now, x), process.scales(after, x)
        x0 = estimate(x, now)
        x = a_after * x0 + s_after * (x - a * x0) / s
        if eta:
            variance = (s / s_after) ** 2 * (s_after**2 - (a_after / a * s) ** 2)
            x = x + eta * variance.clamp(min=0).sqrt() * torch.randn(x.shape, generator=generator).to(x)
    return x


@torch.no_grad()
def denoise(
    prior: Prior,
    latents: Tensor,
    noise: Tensor,
    level: float,
    condition: Condition,
    negative: Condition,
    scale: float,
    steps: int,
    away: Sequence[Away] = (),
) -> Tensor:
    """``latents`` [B, C, h, w] taken to the noise ``level`` in [0, 1] and back (SDEdit, Meng et al. 2022)."""
    t = prior.process.timestep(torch.full((len(latents),), level, device=latents.device))
    noisy = prior.process.add_noise(latents, noise, t)
    return ddim_latents(prior, noisy, condition, negative, scale, steps, t[0], away)


@torch.no_grad()
def ddim(
    prior: Prior, condition: Condition, negative: Condition, scale: float, steps: int = 25, seed: int = 0,
    away: Sequence[Away] = (),
) -> Tensor:  # fmt: skip
    """[B, H, W, 3] pictures in [0, 1] of a prior that tells the shape of its latents."""
    count = len(condition.text)  # type: ignore[arg-type]
    shape = (count, *prior.latent_shape)  # type: ignore[misc]
    start = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    start = start.to(prior.process.alphas_cumprod.device)
    return prior.decode(ddim_latents(prior, start, condition, negative, scale, steps, away=away))
