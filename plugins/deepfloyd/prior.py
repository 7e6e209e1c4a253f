"""Prior ``deepfloyd-if``: stage I of DeepFloyd IF (Shonenkov et al. 2023), after Imagen (Saharia et al. 2022)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from core.diffusion.pretrained import Pretrained, PretrainedConfig
from core.diffusion.texts import Said, padded_ids
from core.types import Condition


class DeepFloyd(Pretrained):
    """A UNet over pixels in [-1, 1]: nothing is encoded, so no gradient passes an autoencoder.

    The network answers with the noise and a variance of its own; only the noise is taken, so guidance acts on it alone.

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline")
    kinds: ClassVar[dict[str, str]] = {
        "text_encoder": "transformers.T5EncoderModel", "tokenizer": "transformers.T5TokenizerFast",
        "unet": "diffusers.UNet2DConditionModel", "scheduler": "diffusers.DDPMScheduler",
    }  # fmt: skip
    guidance_scale = 7.0

    class Config(PretrainedConfig):
        t5_length: int = Field(77, ge=1, le=512)
        """Tokens of T5 that are heard; the network was trained with 77."""

    def text_settings(self) -> list[Any]:
        return [*super().text_settings(), self.options.t5_length]

    def say(self, text: str) -> Said:
        ids, mask = padded_ids(self.tokenizer_of("text_encoder"), text.lower().strip(), self.options.t5_length)
        tower = self.tower("text_encoder")
        return {"text": tower(ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state[0]}

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        found: Any = self.unet(noisy, t, encoder_hidden_states=condition.text)
        return found.sample[:, : noisy.shape[1]]  # type: ignore[no-any-return]
