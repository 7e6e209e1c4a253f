"""Prior ``sana``: Sana 0.6B and 1.6B (Xie et al. 2024), linear attention over the latents of a deep autoencoder."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from core.diffusion.pretrained import Pretrained, PretrainedConfig
from core.diffusion.texts import Said, padded_ids
from core.types import Cameras, Condition

_UNWANTED = "\0"
"""Marks a text that guidance leads away from: it is heard without the instruction."""


class Sana(Pretrained):
    """Told by the last states of a small language model, which is first instructed to imagine the picture.

    The instruction is the pipeline's own (section 3.2 of the paper); it is not said before texts that guidance leads
    away from. Its tokens are dropped from what the network hears, but for the first.

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("SanaPipeline", "SanaPAGPipeline")
    kinds: ClassVar[dict[str, str]] = {
        "vae": "diffusers.AutoencoderDC", "text_encoder": "transformers.Gemma2Model",
        "tokenizer": "transformers.GemmaTokenizerFast", "transformer": "diffusers.SanaTransformer2DModel",
        "scheduler": "diffusers.DPMSolverMultistepScheduler",
    }  # fmt: skip
    network_name = "transformer"
    guidance_scale = 4.5

    class Config(PretrainedConfig):
        instruct: bool = True
        """Say the pipeline's instruction before the prompt."""
        text_length: int = Field(300, ge=2)
        """Tokens of the prompt that are heard."""

    def text_settings(self) -> list[Any]:
        return [*super().text_settings(), self.options.text_length, self.options.instruct]

    def opposite(self, told: Condition, texts: list[str], cameras: Cameras | None = None) -> Condition:
        return self.condition([_UNWANTED + text for text in texts], cameras)

    def say(self, text: str) -> Said:
        tokenizer, length = self.tokenizer_of("text_encoder"), self.options.text_length
        tokenizer.padding_side = "right"
        wanted = text.removeprefix(_UNWANTED)
        said, total = wanted.lower().strip(), length
        if self.options.instruct and wanted == text and wanted:
            instruction = pipeline_instruction()
            said, total = instruction + said, len(tokenizer.encode(instruction)) + length - 2
        ids, mask = padded_ids(tokenizer, said, total)
        states = self.tower("text_encoder")(ids.to(self.device), attention_mask=mask.to(self.device))
        heard = [0, *range(total - length + 1, total)]
        return {"text": states.last_hidden_state[0, heard], "mask": mask[0, heard]}

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        config = self.transformer.config
        found: Any = self.transformer(
            noisy, encoder_hidden_states=condition.text, encoder_attention_mask=condition.extras["mask"],
            timestep=t * self.process.steps * config.timestep_scale,
        )  # fmt: skip
        return found.sample[:, : noisy.shape[1]]  # type: ignore[no-any-return]


def pipeline_instruction() -> str:
    """What diffusers' pipeline says before a prompt."""
    from diffusers import SanaPipeline

    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    return "\n".join(lines)
