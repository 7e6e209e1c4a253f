"""Prior ``stable-diffusion``: latent text-to-image weights in diffusers' format (Rombach et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

from core.diffusion.pretrained import PretrainedClip, PretrainedClipConfig


class StableDiffusion(PretrainedClip):
    """Stable Diffusion 1.x and 2.x, and finetuned models of their structure; noise, v or x0 as the scheduler says.

    Version 2's text tower is saved without the layer that it skips, so its last hidden state is the one to take.
    Prompts longer than the tower hears are encoded in windows side by side.

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = (
        "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionPAGPipeline",
    )  # fmt: skip

    class Config(PretrainedClipConfig):
        """Options."""
