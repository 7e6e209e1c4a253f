"""Prior ``stable-diffusion``: latent text-to-image weights in diffusers' format (Rombach et al. 2022)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Context
from core.diffusion.latent import LatentPrior, load_parts, resolved


class StableDiffusion(LatentPrior):
    """Any folder with ``vae``, ``text_encoder``, ``tokenizer``, ``unet`` and ``scheduler``.

    Raises:
        UserError: the folder lacks a part, or the hub cannot be reached and nothing is cached.
    """

    class Config(BaseConfig):
        model: str = Field(min_length=1)
        """A local folder, or a name that the hub (or a plugin's ``resolve_model``) knows."""
        precision: Literal["float32", "bfloat16", "float16"] = "float32"
        """Arithmetic of the UNet; float16 needs a GPU."""
        image_size: int | None = Field(None, ge=8)
        """Side in pixels that renders are resized to; null takes what the UNet was trained at."""

    def __init__(self, options: Any, context: Context) -> None:
        dtype = getattr(torch, options.precision)
        super().__init__(options, context, load_parts(resolved(options.model, context)), options.image_size, dtype)

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        return cls.space_of(resolved(options.model, context))

