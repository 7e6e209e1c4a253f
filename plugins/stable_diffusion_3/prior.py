"""Prior ``stable-diffusion-3``: Stable Diffusion 3 and 3.5 (Esser et al. 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.diffusion.pretrained import Pretrained, PretrainedConfig
from core.diffusion.texts import Said, clip_length, padded_ids, penultimate
from core.types import Condition


class StableDiffusion3(Pretrained):
    """A transformer (MMDiT) over patches of 16-channel latents, trained to match a flow.

    The token states are those of two CLIP towers side by side, filled up with zeros to T5's width, and then T5's. T5
    may be left out, as in its training: then its states are zeros.

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline", "StableDiffusion3PAGPipeline")
    kinds: ClassVar[dict[str, str]] = {
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModelWithProjection", "tokenizer": "transformers.CLIPTokenizer",
        "text_encoder_2": "transformers.CLIPTextModelWithProjection", "tokenizer_2": "transformers.CLIPTokenizer",
        "text_encoder_3": "transformers.T5EncoderModel", "tokenizer_3": "transformers.T5TokenizerFast",
        "transformer": "diffusers.SD3Transformer2DModel", "scheduler": "diffusers.FlowMatchEulerDiscreteScheduler",
    }  # fmt: skip
    optional: ClassVar[tuple[str, ...]] = ("text_encoder_3", "tokenizer_3")
    network_name = "transformer"
    patch = 2
    guidance_scale = 7.0

    class Config(PretrainedConfig):
        t5: bool = True
        """Listen to T5 where the folder has it; false saves its memory and loses long and detailed prompts."""
        t5_length: int = Field(256, ge=1, le=512)
        """Tokens of T5 that are heard; the CLIP towers hear 77."""

    def text_settings(self) -> list[Any]:
        return [*super().text_settings(), self.options.t5, self.options.t5_length]

    def say(self, text: str) -> Said:
        states, pooled = [], []
        for name in ("text_encoder", "text_encoder_2"):
            tower, tokenizer = self.tower(name), self.tokenizer_of(name)
            ids, _ = padded_ids(tokenizer, text, clip_length(tokenizer, tower))
            found, projected = penultimate(tower, ids.to(self.device))
            states.append(found[0])
            pooled.append(projected[0])  # type: ignore[index]
        clip = torch.cat(states, -1)
        long = self._long(text).to(clip)
        clip = F.pad(clip, (0, long.shape[-1] - clip.shape[-1]))
        return {"text": torch.cat([clip, long]), "pooled": torch.cat(pooled)}

    def _long(self, text: str) -> Tensor:
        """[L, D] what T5 says, or zeros."""
        length = self.options.t5_length
        if not self.options.t5 or "text_encoder_3" not in self.pipeline.kinds:
            return torch.zeros(length, self.transformer.config.joint_attention_dim)
        ids, _ = padded_ids(self.tokenizer_of("text_encoder_3"), text, length)
        return self.tower("text_encoder_3")(ids.to(self.device)).last_hidden_state[0]  # type: ignore[no-any-return]

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        found: Any = self.transformer(
            hidden_states=noisy, timestep=t * self.process.steps, encoder_hidden_states=condition.text,
            pooled_projections=condition.pooled,
        )  # fmt: skip
        return found.sample  # type: ignore[no-any-return]
