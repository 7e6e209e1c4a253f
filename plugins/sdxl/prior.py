"""Prior ``sdxl``: Stable Diffusion XL (Podell et al. 2023), base models of its structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from core.contracts import Context
from core.diffusion.latent import KINDS
from core.diffusion.pretrained import Pretrained, PretrainedConfig
from core.diffusion.texts import Said, clip_length, clip_windows, penultimate
from core.diffusion.tokens import read_paired_tokens, spelled, teach
from core.types import Condition


class StableDiffusionXL(Pretrained):
    """Hears two CLIP towers side by side, the pooled embedding of the second, and six numbers about the picture.

    The numbers are the original size, the upper left corner of the crop, and the target size (section 2.2). Where the
    folder says so (``force_zeros_for_empty_prompt``), the empty text is zeros, as the network was trained without text.

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionXLPipeline", "StableDiffusionXLPAGPipeline")
    kinds: ClassVar[dict[str, str]] = {
        **KINDS, "text_encoder_2": "transformers.CLIPTextModelWithProjection",
        "tokenizer_2": "transformers.CLIPTokenizer",
    }  # fmt: skip
    guidance_scale = 5.0

    class Config(PretrainedConfig):
        original_size: int | None = Field(None, ge=1)
        """The size in pixels that pictures are said to have had before cropping; null is `image_size`. Small values ask
        for blurred pictures."""
        target_size: int | None = Field(None, ge=1)
        """The size in pixels that is said to be wanted; null is `image_size`."""
        crop: tuple[int, int] = (0, 0)
        """Where pictures are said to be cropped, pixels from the top and the left; 0 keeps objects in the middle."""
        tokens: Path | None = None
        """Words learned by textual inversion for both towers: a file of embeddings, or a folder of such files."""

    def __init__(self, options: Any, context: Context) -> None:
        self._words = {} if options.tokens is None else read_paired_tokens(options.tokens)  # before anything is loaded
        self._spellings: dict[str, str] = {}
        super().__init__(options, context)
        if self._words and self.text_changes is not None:
            self.text_changes = [*self.text_changes, {w: [v.tolist() for v in pair] for w, pair in self._words.items()}]

    def prepared(self, name: str, tower: Any) -> Any:
        tower = super().prepared(name, tower)
        if self._words:
            self._tokenizers.pop(name, None)  # a tower that was dropped is taught again, with a tokenizer as new
        for word, pair in self._words.items():
            names = teach(tower, self.tokenizer_of(name), word, pair[name.endswith("_2")])
            self._spellings[word] = " ".join(names)
        return tower

    @property
    def silent(self) -> bool:
        """Whether the empty text is zeros."""
        return bool(self.pipeline.index.get("force_zeros_for_empty_prompt", True))

    def text_settings(self) -> list[Any]:
        return [*super().text_settings(), self.silent]

    def say(self, text: str) -> Said:
        if not text and self.silent:
            return {name: torch.zeros_like(value) for name, value in self.hear("").items()}
        return self.hear(text)

    def hear(self, text: str) -> Said:
        """``text`` [L, D1 + D2] and ``pooled`` [D2] of the two towers."""
        states, pooled = [], torch.empty(0)
        for name in ("text_encoder", "text_encoder_2"):
            tower, tokenizer = self.tower(name), self.tokenizer_of(name)
            windows = clip_windows(tokenizer, spelled(text, self._spellings), clip_length(tokenizer, tower))
            found, projected = penultimate(tower, windows.to(self.device))
            states.append(found.flatten(0, 1))
            pooled = pooled if projected is None else projected[0]
        return {"text": torch.cat(states, -1), "pooled": pooled}

    def condition_of(self, said: Said) -> Condition:
        o, size = self.options, self.image_size
        original, target = o.original_size or size, o.target_size or size
        numbers = [original, original, *o.crop, target, target]
        return super().condition_of({**said, "time_ids": torch.tensor(numbers, device=self.device).float()})

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        added = {"text_embeds": condition.pooled, "time_ids": condition.extras["time_ids"]}
        found: Any = self.unet(noisy, t, encoder_hidden_states=condition.text, added_cond_kwargs=added)
        return found.sample  # type: ignore[no-any-return]
