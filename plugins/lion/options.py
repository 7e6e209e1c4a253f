"""What the generator ``lion`` is told, and which of it is refused."""

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
from core.generative.scene import LookConfig
from plugins.lion.priors import GlobalConfig, LocalConfig
from plugins.lion.vae import VaeConfig


class SamplingConfig(BaseConfig):
    """How shapes are drawn."""

    mode: Literal["samples", "interpolation", "variations"] = "samples"
    """New shapes; shapes between two, through the noise that the priors' ODE takes them to; or one shape that is noised
    and denoised."""
    shapes: tuple[Path, ...] = ()
    """Meshes that are interpolated (two) or varied (one); none takes samples."""
    noise: float = Field(default=0.3, gt=0, le=1)
    """Time that variations are noised to."""
    sampler: Literal["ddim", "ancestral", "ode"] = "ddim"
    """Deterministic steps of equal length, steps with noise, or an adaptive solver of the probability-flow ODE."""
    steps: int = Field(default=50, ge=1)
    """Of ddim and ancestral."""
    tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Of the ODE's solver."""
    clip: float | None = Field(default=3.0, gt=0)
    """Largest number in ddim's estimates of latents, of deviation 1 or so; null leaves them alone, as published."""
    guidance: float = Field(default=1.0, ge=0)
    """Classifier-free guidance where something is asked for; 1 is none."""


class SurfaceConfig(BaseConfig):
    """How points become a surface (Peng et al. 2021)."""

    resolution: int = Field(default=64, ge=16, le=256)
    """Cells along a side of the scene's cube."""
    sigma: float = Field(default=2.0, gt=0)
    """Smoothing, in cells."""
    draws: int = Field(default=4, ge=1, le=64)
    """Sets of latent points that are drawn for one global latent, all of which make the surface."""


class LionConfig(BaseConfig):
    """What a lion is told."""

    data: Annotated[ComponentSpec, Slot("data")]
    """Surface points of objects."""
    train: Literal["vae", "priors"] = "priors"
    """The autoencoder under N(0, I), or both priors on the latents of a fixed one."""
    hierarchical: bool = True
    """Whether there is a global latent; without it latent points are all there is, for comparisons."""
    condition: Literal["none", "class", "clip"] = "none"
    """What the priors are told: nothing, the object's class, or what CLIP says of its caption (or picture)."""
    family: str = "built-in"
    """Folder of the embedded family whose CLIP is used, or `built-in`."""
    untold: float = Field(default=0.1, ge=0, lt=1)
    """Share of the objects whose condition is left out in training, for guidance."""
    vae: VaeConfig = VaeConfig()
    """The autoencoder."""
    shape_prior: GlobalConfig = GlobalConfig()
    """The score network over the global latent."""
    point_prior: LocalConfig = LocalConfig()
    """The score network over latent points."""
    sde: SdeConfig = SdeConfig()
    """The process that adds noise to latents."""
    mixing: float | None = 0.0
    """Initial logit of the networks' share in each channel, beside the score of N(0, I); null mixes nothing."""
    weighting: Weighting = "unweighted"
    """What the priors minimise."""
    importance: tuple[Weighting, ...] = ()
    """The weightings that times are drawn for; none draws uniformly."""
    kl: Schedule = Schedule([(0, 1.0)])
    """Weight of the divergence of the posterior from N(0, I)."""
    normals: float = Field(default=1.0, ge=0)
    """Weight of the normals' loss, one minus the cosine, summed over points; where `vae.normals` is set."""
    average: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the moving average of the weights, which samples are drawn with."""
    sampling: SamplingConfig = SamplingConfig()
    """How shapes are drawn."""
    surface: SurfaceConfig = SurfaceConfig()
    """How their points become a surface."""
    look: LookConfig
    """How they are shown."""
    start: Path | None = None
    """A published checkpoint (`.pt`) of the same sizes that training goes on from."""


def check(options: Any, data: Any) -> None:
    """Refuse pools and sets of points that are too small, options that contradict, and files that are not there.

    Raises:
        UserError: saying what to change.
    """
    objects, batch = getattr(data.options, "objects", None), getattr(data.options, "batch", 1)
    if objects is not None and objects < 2 * batch:
        raise UserError(
            f"data.objects is {objects}, too few for batches of {batch}: at least two batches are needed, and some "
            "hundred objects for samples that are not copies"
        )
    points = data.options.points
    for where, levels in (("vae.shape", options.vae.shape), ("vae.unet.down", options.vae.unet.down)):
        fewer, most = [points, *(level.centers for level in levels)], max(level.centers for level in levels)
        if fewer != sorted(fewer, reverse=True):
            raise UserError(
                f"{where}: its levels keep {', '.join(str(n) for n in fewer[1:])} of data.points={points}; each must "
                f"keep at most what the one before it has (raise data.points to {most} or lower centers)"
            )
    if options.condition == "class" and not getattr(data, "class_names", ()):
        raise UserError("condition=class needs data with classes (class_names), such as procedural-points")
    wanted = {"interpolation": (0, 2), "variations": (0, 1), "samples": (0,)}[options.sampling.mode]
    if len(options.sampling.shapes) not in wanted:
        raise UserError(
            f"sampling.shapes: {options.sampling.mode} takes {' or '.join(map(str, wanted))} meshes, found "
            f"{len(options.sampling.shapes)}"
        )
    if options.start is not None and not options.start.is_file():
        raise UserError(f"start: there is no checkpoint {options.start}")
