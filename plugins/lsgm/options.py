"""What the generator ``lsgm`` is told, and which of it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.diffusion.sde import SdeConfig
from core.diffusion.sde_objective import Weighting
from core.errors import UserError
from plugins.lsgm.ncsnpp import ScoreConfig
from plugins.lsgm.vae import VaeConfig


class LsgmConfig(BaseConfig):
    """What an lsgm is told."""

    data: Annotated[ComponentSpec, Slot("data")]
    """Pictures."""
    size: int = Field(32, ge=8)
    """Side in pixels that pictures are scaled down to."""
    train: Literal["vae", "joint", "prior"] = "joint"
    """The autoencoder under N(0, I); both end to end; or a score model alone on the latents of a fixed one."""
    anew: bool = True
    """Whether a score model that is trained alone starts with new weights, as published, or goes on with the averaged
    ones of the stage before, which short trainings gain from."""
    vae: VaeConfig = VaeConfig()
    """The autoencoder."""
    score: ScoreConfig = ScoreConfig()
    """The score model's network."""
    sde: SdeConfig = SdeConfig()
    """The process that adds noise to latents."""
    mixing: float | None = -6.0
    """Initial logit of the network's share in each channel, beside the score of N(0, I); null mixes nothing."""
    weighting: Weighting = "reweighted"
    """What the score model minimises; the autoencoder always gets the likelihood's weights."""
    importance: tuple[Weighting, ...] = ("likelihood", "reweighted")
    """The weightings that times are drawn for; none draws uniformly."""
    times: Literal["shared", "separate"] = "shared"
    """Whether both losses use the same times (one pass), or times of their own (two passes, less variance)."""
    inactive: float = Field(0.0, ge=0)
    """Channels whose mean divergence from N(0, I) is below so many nats when joint training begins stay N(0, I)."""
    kl: Schedule = Schedule([(0, 1.0)])
    """Weight of the divergence of the posterior from the prior."""
    own_scale: Schedule = Schedule([(0, 1.0)])
    """How far a pixel's scale is its own, from 0 (a picture has one) to 1; 0 first keeps objects from staying grey."""
    smooth: float = Field(1e-2, ge=0)
    """Weight of the sum of the largest singular values of all convolutions."""
    vae_rate: float = Field(1.0, gt=0)
    """The autoencoder's learning rate as a multiple of the score model's."""
    average: float = Field(0.999, ge=0, lt=1)
    """Decay of the moving average of the weights, which samples are drawn with."""
    sampler: Literal["ode", "ancestral"] = "ode"
    """How latents are drawn."""
    tolerance: float = Field(1e-3, gt=0, lt=1)
    """Of the ODE's solver."""
    sampler_steps: int = Field(200, ge=1)
    """Steps of the ancestral sampler."""
    start: Path | None = None
    """A published checkpoint (`.pt`) of the same sizes that training goes on from."""


def check(options: Any, data: Any) -> None:
    """Refuse sizes that do not fit, pools that are too small and files that are not there.

    Raises:
        UserError: saying what to change.
    """
    side, levels_ = options.size, len(options.vae.widths) - 1
    below = len(options.score.widths) - 1
    if options.vae.scales > len(options.vae.widths):
        raise UserError(f"vae.scales is {options.vae.scales}, but vae.widths names {levels_ + 1} resolutions only")
    if side % 2 ** (levels_ + below):
        raise UserError(
            f"size is {side}, which cannot be halved {levels_} times by vae.widths and {below} times by score.widths"
        )
    if options.start is not None and not options.start.is_file():
        raise UserError(f"start: there is no checkpoint {options.start}")
    pool, batch = getattr(data.options, "images", None), getattr(data.options, "batch", 1)
    if pool is not None and pool < 2 * batch:
        raise UserError(
            f"data.images is {pool}, too few for batches of {batch}: at least two batches are needed, "
            f"and some thousand pictures for samples that are not copies"
        )
