"""Prior ``controlnet``: Stable Diffusion with a ControlNet (Zhang et al. 2023) that is told what was rendered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.contracts import Context
from core.diffusion.folder import open_network
from core.diffusion.latent import resolved
from core.diffusion.pretrained import PretrainedClip, PretrainedClipConfig
from core.errors import UserError
from core.types import Cameras, Condition, Render, Views
from plugins.controlnet import pictures


class ControlNet(PretrainedClip):
    """The scene's own normals, depth or edges hold the prior to the shape that is there, while it paints.

    Both ends of guidance are told the same picture. No gradient passes through it.

    Raises:
        UserError: a folder lacks a part, is damaged or another model's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline")
    sees_render = True
    controlnet: Any

    class Config(PretrainedClipConfig):
        model: str = Field("sd15", min_length=1)
        """Stable Diffusion: a local folder, an alias, or a name on the hub."""
        control: Literal["normal", "depth", "canny"] = "normal"
        """What of the render is shown: normals, depth, or edges of its colours."""
        controlnet: str | None = None
        """The ControlNet: a folder, an alias or a name on the hub; null is `controlnet-` and the control."""
        control_scale: float = Field(1.0, ge=0)
        """Multiplies what the ControlNet adds to the UNet."""
        edges: tuple[float, float] = (0.4, 0.8)
        """Canny's thresholds, for brightness in [0, 1]; these are the usual 100 and 200 of bytes."""

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        shown = [] if options.control == "canny" else [options.control]
        return ["rgb", "text|view-text", *shown], ["latent"]

    def __init__(self, options: Any, context: Context) -> None:
        source = resolved(options.controlnet or f"controlnet-{options.control}", context)
        network = open_network(source, "diffusers.ControlNetModel", getattr(torch, options.precision))
        super().__init__(options, context)
        self.controlnet = network
        mine, theirs = (int(n.config.cross_attention_dim) for n in (self.unet, network))
        if mine != theirs:
            raise UserError(
                f"{source} was made for another Stable Diffusion: it hears texts of {theirs} numbers, and the UNet of "
                f"{options.model} of {mine}"
            )

    def condition(
        self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None,
        render: Render | None = None,
    ) -> Condition:  # fmt: skip
        """Without ``render`` the ControlNet is shown black."""
        told = super().condition(texts, cameras)
        return replace(told, extras={**told.extras, "control": self._shown(render, len(texts))})

    @torch.no_grad()
    def _shown(self, render: Render | None, count: int) -> Tensor:
        """[B, 3, H, W] in [0, 1], at the prior's size."""
        if render is None:
            return torch.zeros(count, 3, self.image_size, self.image_size, device=self.device)
        if self.options.control == "normal":
            return self.fitted(pictures.normals(render))
        if self.options.control == "depth":
            return self.fitted(pictures.depth(render, self.context.bound))
        return self.fitted(pictures.edges(render, *self.options.edges))

    def opposite(self, told: Condition, texts: list[str], cameras: Cameras | None = None) -> Condition:
        """The unwanted texts with the same control."""
        return replace(self.condition(texts, cameras), extras=told.extras)

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        down, mid = self.controlnet(
            noisy, t, condition.text, condition.extras["control"].to(self.controlnet.dtype),
            conditioning_scale=self.options.control_scale, return_dict=False,
        )  # fmt: skip
        found: Any = self.unet(
            noisy, t, encoder_hidden_states=condition.text, down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        )  # fmt: skip
        return found.sample  # type: ignore[no-any-return]
