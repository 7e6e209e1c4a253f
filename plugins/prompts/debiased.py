"""Prompt ``debiased-view-words``: view words, without the prompt's own words that speak against a side.

Prompt debiasing (Hong et al. 2023, "Debiasing Scores and Prompts of 2D Diffusion for View-consistent Text-to-3D
Generation", section 4.2): "a smiling cat, back view" asks for a face and for its back. A language model tells which
words these are, by how likely it finds the side with and without each.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from core.contracts import Context
from core.diffusion.folder import open_network
from core.diffusion.latent import resolved
from core.errors import UserError
from plugins.prompts.view_words import ViewWords

log = logging.getLogger("maquette")

SIDES = ("front", "side", "back", "overhead")
_SENTENCE = "This image is depicting a {mask} view of {prompt}"


class DebiasedViewWords(ViewWords):
    """A word z of the prompt u is not said from side v where ``P(v | u) / P(v | u without z)`` is below ``threshold``.

    P is a masked language model's, among the four sides. The model is asked once a prompt, with as many sentences as
    the prompt has words and one more.

    Raises:
        UserError: the model cannot be had, is of another kind, or knows a side's word only in pieces.
    """

    class Config(ViewWords.Config):
        model: str = Field("google-bert/bert-base-uncased", min_length=1)
        """A masked language model in transformers' format: a folder, an alias, or a name on the hub."""
        threshold: float = Field(0.95, gt=0, le=1)
        """Below which ratio of the side's likelihoods with and without a word the word is left out."""
        words: list[str] | None = None
        """Which words may be left out; null has all of them tried."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._heard: dict[str, dict[str, str]] = {}

    def said(self, prompt: str, word: str) -> str:
        if prompt not in self._heard:
            self._heard[prompt] = self.debiased(prompt)
        return super().said(self._heard[prompt][word], word)

    def debiased(self, prompt: str) -> dict[str, str]:
        """The prompt as each side hears it."""
        words = prompt.split()
        tried = [k for k, word in enumerate(words) if self._may_go(word)] if len(words) > 1 else []
        without = [" ".join(w for k, w in enumerate(words) if k != gone) for gone in tried]
        told = self.likelihood([prompt, *without])
        against = told[0] / told[1:] < self.options.threshold  # [tried, sides]
        heard = {}
        for side, name in enumerate(SIDES):
            gone = {k for k, wrong in zip(tried, against[:, side].tolist(), strict=True) if wrong}
            kept = [word for k, word in enumerate(words) if k not in gone]
            heard[name] = " ".join(kept) if kept else prompt
            if gone and kept:
                log.info("the %s view hears '%s'", name, heard[name])
        return heard

    def _may_go(self, word: str) -> bool:
        plain = re.sub(r"\W", "", word).lower()
        return bool(plain) and (self.options.words is None or plain in [w.lower() for w in self.options.words])

    @torch.no_grad()
    def likelihood(self, prompts: list[str]) -> Tensor:
        """[B, 4] how likely each side is in a sentence on each prompt; rows sum to 1."""
        from transformers import AutoTokenizer

        source = resolved(self.options.model, self.context)
        network = open_network(source, "transformers.AutoModelForMaskedLM")
        tokenizer = AutoTokenizer.from_pretrained(network.name_or_path)
        ids: Any = tokenizer.convert_tokens_to_ids(list(SIDES))
        if tokenizer.mask_token is None or tokenizer.unk_token_id in ids or None in ids:
            raise UserError(f"prompts.model: {source} has no mask, or no single token for {', '.join(SIDES)}")
        sentences = [_SENTENCE.format(mask=tokenizer.mask_token, prompt=prompt) for prompt in prompts]
        told = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        logits = network(**told).logits[told.input_ids == tokenizer.mask_token_id]
        return logits.float()[:, ids].softmax(-1)
