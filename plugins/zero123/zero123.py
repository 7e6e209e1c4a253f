"""Prior ``zero123``: Zero-1-to-3 (Liu et al. 2023), Zero123-XL and Stable Zero123."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Context
from core.diffusion.latent import resolved
from core.diffusion.ldm_configs import SAMPLE_SIZE
from core.diffusion.novel_view import NovelViewPrior
from core.diffusion.relative_pose import PoseMode
from core.errors import UserError
from core.precision import settled_dtype
from plugins.zero123.checkpoint import load_checkpoint
from plugins.zero123.folder import load_folder, pose_mode_of

LATENTS = (4, SAMPLE_SIZE, 8)
"""Channels, side, and pixels to one latent."""


class Zero123(NovelViewPrior):
    """A folder in diffusers' formats, or an original single-file checkpoint, which is read as it is.

    Raises:
        UserError: the model is missing, damaged, or of another kind.
    """

    guidance_scale = 3.0

    class Config(BaseConfig):
        model: str = Field(min_length=1)
        """A folder in diffusers' formats with a cc_projection, or a .ckpt or .safetensors in the LDM layout."""
        precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """Arithmetic of the UNet; auto is bfloat16 where the machine multiplies it in hardware, else float32."""
        image_size: int | None = Field(None, ge=8)
        """Side in pixels that pictures are resized to; null takes what the UNet was trained at."""
        pose_mode: Literal["auto", "relative-radius", "absolute-polar"] = "auto"
        """Fourth number of the relative camera: the radius' difference (Zero-1-to-3, XL) or the given camera's polar
        angle (Stable Zero123); auto goes by what a converted folder notes, else by the name."""
        background: float = Field(1.0, ge=0, le=1)
        """Grey level that given pictures are laid over, as in the model's training."""
        ema: bool = True
        """Take the moving average of the UNet, where a checkpoint holds one."""

    def __init__(self, options: Any, context: Context) -> None:
        source = _source(options.model, context)
        parts = load_folder(source) if source.is_dir() else load_checkpoint(source, options.ema)
        factor = 2 ** (len(parts["vae"].config.block_out_channels) - 1)
        if options.image_size is not None:
            if options.image_size % factor:
                raise UserError(f"image_size is {options.image_size}, but must be a multiple of {factor}")
            parts["unet"].register_to_config(sample_size=options.image_size // factor)
        mode: PoseMode = pose_mode_of(source) if options.pose_mode == "auto" else options.pose_mode
        dtype = settled_dtype(options.precision, context.device)
        super().__init__(options, context, parts, options.image_size, dtype, mode, options.background)

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        source = _source(options.model, context)
        channels, side, factor = LATENTS  # of every model in the original layout
        if source.is_dir():
            from diffusers import AutoencoderKL

            channels, side, _ = cls.space_of(str(source))
            factor = 2 ** (len(AutoencoderKL.load_config(str(source), subfolder="vae")["block_out_channels"]) - 1)
        if options.image_size is not None:
            side = options.image_size // factor
        return channels, side, side


def _source(model: str, context: Context) -> Path:
    return Path(resolved(model, context)).expanduser()
