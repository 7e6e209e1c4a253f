"""Prior ``mvdream``: four views of one object denoised together (Shi et al. 2024), from the published weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch.nn import functional as F

from core.contracts import Context
from core.diffusion.folder import Pipeline, network_config, open_pipeline
from core.diffusion.latent import KINDS, pixels_per_latent, resolved
from core.diffusion.multi_view import MultiViewPrior
from core.diffusion.pretrained import PretrainedClip, PretrainedClipConfig
from core.errors import UserError
from core.types import Cameras, Condition, Views
from plugins.mvdream.unet import CAMERA, SAMPLE_SIZE, check_unet, load_unet


class MVDream(PretrainedClip, MultiViewPrior):
    """Stable Diffusion 2.1 with attention across four views, each told its camera beside the timestep.

    Views of a set should lie 90 degrees apart at one elevation, as ``random-cameras`` with ``orbit: 4`` puts them.

    Raises:
        UserError: the model is missing, damaged, or of another kind.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("MVDreamPipeline", "StableDiffusionPipeline")
    frames = 4

    class Config(PretrainedClipConfig):
        base: str = Field("sd21-base", min_length=1)
        """Where the text tower comes from when ``model`` is an original checkpoint, which is read for all the rest."""

    @classmethod
    def open(cls, options: Any, context: Context) -> Pipeline:
        source = Path(resolved(options.model, context)).expanduser()
        if not source.is_file():
            return super().open(options, context)
        kinds = {name: KINDS[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
        return replace(open_pipeline(resolved(options.base, context), kinds, context=context), source=str(source))

    @classmethod
    def check_fits(cls, options: Any, pipeline: Pipeline) -> None:
        super().check_fits(options, pipeline)
        if "unet" in pipeline.kinds:
            check_unet(pipeline.config("unet"), pipeline.source)

    def load_networks(self, pipeline: Pipeline, options: Any) -> dict[str, Any]:
        parts = {"scheduler": pipeline.load("scheduler")}
        parts["vae"] = pipeline.load("vae", getattr(torch, options.vae_precision))
        file = None if "unet" in pipeline.kinds else Path(pipeline.source)
        return parts | {"unet": load_unet(pipeline, file, getattr(torch, options.precision))}

    @classmethod
    def native_size(cls, config: Any) -> int:
        return int(config.get("sample_size") or config["image_size"])

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        if not Path(resolved(options.model, context)).expanduser().is_file():
            return super().space(options, context)
        vae = network_config(resolved(options.base, context), "vae", options.revision)
        pixels = pixels_per_latent(vae)
        side = SAMPLE_SIZE if options.image_size is None else options.image_size // pixels
        return int(vae["latent_channels"]), side, side

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        told = super().condition(texts)
        if cameras is None:
            return replace(told, camera=torch.zeros(len(texts), CAMERA, device=self.device))
        return replace(told, camera=camera_matrix(cameras.to(self.device)))


def camera_matrix(cameras: Cameras) -> torch.Tensor:
    """[B, 16] camera-to-world matrices row by row, with the camera moved along its ray to distance 1.

    The published model knows a world with z up and OpenGL's camera axes; its objects' fronts face +x, as here.

    Raises:
        UserError: a camera stands in the origin.
    """
    c2w = cameras.c2w.clone()
    distance = c2w[:, :3, 3].norm(dim=-1, keepdim=True)
    if (distance < 1e-6).any():
        raise UserError("a multi-view prior is told directions towards the origin, and a camera stands in it")
    c2w[:, :3, 3] = F.normalize(c2w[:, :3, 3], dim=-1)
    return c2w.flatten(1).float()
