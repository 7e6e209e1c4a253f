"""Prior ``flux``: FLUX.1 [dev] and [schnell] (Black Forest Labs 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.diffusion.pretrained import Pretrained, PretrainedConfig
from core.diffusion.texts import Said, clip_length, padded_ids
from core.types import Condition

_SIDE = 128  # latents; no configuration says it


class Flux(Pretrained):
    """A transformer over 2x2 patches of 16-channel latents, each patch one token with its place as a rotation.

    The dev model was distilled from guided predictions and is told their scale (``embedded_guidance``); guidance
    against another text comes on top of that, and its scale of 1 leaves it at that.

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("FluxPipeline", "FluxImg2ImgPipeline")
    kinds: ClassVar[dict[str, str]] = {
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel", "tokenizer": "transformers.CLIPTokenizer",
        "text_encoder_2": "transformers.T5EncoderModel", "tokenizer_2": "transformers.T5TokenizerFast",
        "transformer": "diffusers.FluxTransformer2DModel", "scheduler": "diffusers.FlowMatchEulerDiscreteScheduler",
    }  # fmt: skip
    network_name = "transformer"
    patch = 2
    guidance_scale = 1.0

    class Config(PretrainedConfig):
        embedded_guidance: float = Field(3.5, ge=0)
        """The scale that a guidance-distilled model (dev) is told; others (schnell) hear nothing of it."""
        t5_length: int = Field(512, ge=1, le=512)
        """Tokens of T5 that are heard; schnell was trained with 256."""

    @classmethod
    def native_size(cls, config: Any) -> int:
        return _SIDE

    def text_settings(self) -> list[Any]:
        return [*super().text_settings(), self.options.t5_length]

    def say(self, text: str) -> Said:
        clip, tokenizer = self.tower("text_encoder"), self.tokenizer_of("text_encoder")
        ids, _ = padded_ids(tokenizer, text, clip_length(tokenizer, clip))
        pooled = clip(ids.to(self.device)).pooler_output[0]
        long_ids, _ = padded_ids(self.tokenizer_of("text_encoder_2"), text, self.options.t5_length)
        return {"text": self.tower("text_encoder_2")(long_ids.to(self.device)).last_hidden_state[0], "pooled": pooled}

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        told = torch.full_like(t, self.options.embedded_guidance) if self.transformer.config.guidance_embeds else None
        found: Any = self.transformer(
            hidden_states=F.pixel_unshuffle(noisy, 2).flatten(2).transpose(1, 2), timestep=t, guidance=told,
            pooled_projections=condition.pooled, encoder_hidden_states=condition.text,
            txt_ids=noisy.new_zeros(condition.text.shape[1], 3), img_ids=places(noisy),  # type: ignore[union-attr]
        )  # fmt: skip
        return F.pixel_shuffle(found.sample.transpose(1, 2).unflatten(2, (noisy.shape[2] // 2, -1)), 2)


def places(latents: Tensor) -> Tensor:
    """[h w / 4, 3] zero, row and column of each patch of latents [B, C, h, w]."""
    rows, columns = (torch.arange(side // 2, device=latents.device) for side in latents.shape[2:])
    grid = torch.cartesian_prod(rows, columns)
    return F.pad(grid, (1, 0)).to(latents.dtype)
