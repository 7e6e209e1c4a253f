"""One deterministic sampling loop for every prior (DDIM, Song et al. 2021, eq. 12 with eta 0)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.contracts import Away, Prior
from core.diffusion.guidance import predict_with_guidance
from core.types import Condition


@torch.no_grad()
def ddim_latents(
    prior: Prior,
    start: Tensor,
    condition: Condition,
    negative: Condition,
    scale: float,
    steps: int,
    first: int | None = None,
    away: Sequence[Away] = (),
) -> Tensor:
    """From ``start`` [B, C, h, w] to latents, over ``steps`` timesteps at equal distances, from ``first`` down to 0."""
    process, x = prior.process, start
    times = torch.linspace(process.steps - 1 if first is None else first, 0, steps).round().long().tolist()
    for now, after in zip(times, [*times[1:], None], strict=True):
        t = torch.full((len(x),), now, device=x.device)
        output = predict_with_guidance(prior, x, t, condition, negative, scale, away)
        x0, noise = process.to_x0(output, x, t), process.to_noise(output, x, t)
        x = x0 if after is None else process.add_noise(x0, noise, torch.full_like(t, after))
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
    return ddim_latents(prior, noisy, condition, negative, scale, steps, int(t[0]), away)


@torch.no_grad()
def ddim(
    prior: Prior, condition: Condition, negative: Condition, scale: float, steps: int = 25, seed: int = 0
) -> Tensor:
    """[B, H, W, 3] pictures in [0, 1] of a prior with a UNet (its size gives the latents' shape)."""
    config = prior.unet.config  # type: ignore[union-attr]
    count = len(condition.text)  # type: ignore[arg-type]
    shape = (count, config.in_channels, config.sample_size, config.sample_size)  # type: ignore[union-attr]
    start = torch.randn(shape, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    start = start.to(next(prior.parameters()).device)
    return prior.decode(ddim_latents(prior, start, condition, negative, scale, steps))
