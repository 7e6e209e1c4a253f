"""Prior ``instruct-pix2pix``: pictures changed by an instruction (Brooks et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from core.contracts import Away
from core.diffusion.pretrained import PretrainedClip, PretrainedClipConfig
from core.types import Cameras, Condition, Render, Views


class InstructPix2Pix(PretrainedClip):
    """Stable Diffusion whose UNet also takes the latent of the picture that is to be changed: the view as rendered.

    Guidance is three-way (eq. 3): from nothing to the picture by ``image_scale``, from there to the instruction by the
    score's scale. Text-to-picture jobs go through it as any; ``dataset-update`` with ``keep_originals`` is
    Instruct-NeRF2NeRF's use (Haque et al. 2023).

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionInstructPix2PixPipeline",)
    sees_render = True

    class Config(PretrainedClipConfig):
        model: str = Field("ip2p", min_length=1)
        """A local folder, an alias, or a name on the hub."""
        image_scale: float = Field(1.5, ge=1)
        """Guidance towards the picture that is changed: larger keeps more of it; 1 is the model's own."""

    def condition(
        self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None,
        render: Render | None = None,
    ) -> Condition:  # fmt: skip
        """Without ``render``, the picture is zeros, as the network was trained to hear of none."""
        return replace(super().condition(texts, cameras), image=self._shown(render, len(texts)))

    @torch.no_grad()
    def _shown(self, render: Render | None, count: int) -> Tensor:
        """[B, C, h, w] unscaled latents of what was rendered."""
        if render is None:
            return torch.zeros(count, *self.latent_shape, device=self.device)
        return self.mode(render.rgb)

    def opposite(self, told: Condition, texts: list[str], cameras: Cameras | None = None) -> Condition:
        """The unwanted texts with the same picture."""
        return replace(self.condition(texts, cameras), image=told.image)

    def away(self, told: Condition, untold: Condition) -> list[Away]:
        """Both ends move away from the unwanted text without a picture."""
        image: Any = told.image
        if self.options.image_scale == 1:
            return []
        weight = torch.full((len(image),), self.options.image_scale - 1, device=image.device)
        return [Away(replace(untold, image=torch.zeros_like(image)), weight, both=True)]
