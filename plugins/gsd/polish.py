"""Polishing: a 2D prior draws over pictures of a set of Gaussians, and the set follows what it drew."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.asked import Asked
from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.diffusion.sampler import denoise
from core.kernels.splatting.pictures import draw
from plugins.gsd.fitting import BACKGROUND, around, fitted
from plugins.gsd.guidance import Given
from plugins.gsd.tokens import splats_of


class PolishConfig(BaseConfig):
    """How samples are polished."""

    prior: Annotated[ComponentSpec, Slot("prior")]
    """Who draws."""
    rounds: int = Field(default=1, ge=1)
    """How often views are drawn over and followed."""
    views: int = Field(default=4, ge=1)
    """New views of each round."""
    size: int = Field(default=64, ge=16)
    """Side in pixels at which the prior sees them."""
    level: float = Field(default=0.4, gt=0, lt=1)
    """Share of the prior's noise that is put on a view before it is drawn anew."""
    steps: int = Field(default=8, ge=1)
    """DDIM steps of the prior."""
    scale: float = Field(default=3.0, ge=0)
    """The prior's classifier-free guidance."""
    fit_steps: int = Field(default=20, ge=1)
    """Steps in which the Gaussians follow the views."""
    rate: float = Field(default=0.01, gt=0)
    """Their learning rate."""
    given: float = Field(default=4.0, gt=0)
    """Weight of a given view; a new one has 1."""
    again: bool = False
    """Whether the first round's views lead a second sampling, beside the given ones, before they are followed."""


@torch.no_grad()
def redrawn(
    tokens: Tensor, prior: Any, asked: Asked, config: PolishConfig, turn: float, random: torch.Generator
) -> Given:
    """New views of a set [N, 16], noised and denoised by the prior (Meng et al. 2022, "SDEdit").

    Args:
        turn: azimuth in radians of the side that is known; new views lie between it and itself.
    """
    cameras = around(config.views + 1, config.size, turn)[1:].to(tokens.device)
    seen = draw(splats_of(tokens), cameras)
    latents = prior.encode((seen.rgb + (1 - seen.opacity) * BACKGROUND).clamp(0, 1))
    told, untold, away = asked.conditions(prior, cameras)
    noise = torch.randn(latents.shape, generator=random).to(latents)
    drawn = denoise(prior, latents, noise, config.level, told, untold, config.scale, config.steps, away)
    return Given(cameras, prior.decode(drawn).clamp(0, 1))


def scaled(views: Given, size: int) -> Given:
    """The same at ``size`` pixels a side, without masks."""
    rgb = F.interpolate(views.rgb.movedim(-1, 1), size=(size, size), mode="bilinear", antialias=True).movedim(1, -1)
    return Given(views.cameras.resized(size, size), rgb.clamp(0, 1))


def polished(
    tokens: Tensor, prior: Any, asked: Asked, given: Given | None, config: PolishConfig, random: torch.Generator,
    first: Given | None = None,
) -> Tensor:  # fmt: skip
    """A set [N, 16] that has followed the given views and, round by round, new ones that the prior drew over.

    Args:
        first: the first round's views, where they are drawn already.
    """
    turn = 0.0 if given is None else float(given.cameras.azimuth[0])
    for _ in range(config.rounds):
        new = redrawn(tokens, prior, asked, config, turn, random) if first is None else first
        first, weight = None, None
        if given is not None:
            new, weight = given.joined(scaled(new, given.cameras.height), config.given)
        tokens = fitted(tokens, new.cameras, new.rgb, None, config.fit_steps, config.rate, weight)
    return tokens
