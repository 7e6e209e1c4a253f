"""A picture's CLIP embedding by way of words: what ``sight`` sees it to be, said in a sentence, and that embedded.

A CLIP this small places a picture of a pair that it never saw, a cyan corgi, among those of its colour, and a pair of
pixels' shift is enough to make it a cyan mushroom. Kind and colour are heads of their own in ``sight``, and the text
tower puts pairs together that no picture showed; both towers share one space.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from plugins.embedded.family import part
from plugins.embedded.sight import Sight
from plugins.embedded.tokenizer import MAX_LENGTH


class NamedEncoder(nn.Module):
    """Called as transformers' vision tower with projection is.

    Args:
        vae: the family's autoencoder.  sight: on its latents.
        tower: ``CLIPTextModelWithProjection``.  tokenizer: of the family.
    """

    def __init__(self, vae: Any, sight: Sight, tower: Any, tokenizer: Any) -> None:
        super().__init__()
        self.vae, self.sight, self.tower, self.tokenizer = vae, sight, tower, tokenizer
        side = int(vae.config.sample_size)
        self.config = SimpleNamespace(image_size=side, projection_dim=tower.config.projection_dim)
        self._known: dict[str, Tensor] = {}

    @classmethod
    def of_family(cls, family: str) -> NamedEncoder:
        """In evaluation mode; with an autoencoder of its own, for a prior may want its in another precision."""
        from diffusers import AutoencoderKL
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer
        from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

        disable_progress_bar()
        before = get_verbosity()
        set_verbosity_error()  # it would list the vision tower as unexpected
        try:
            tower = CLIPTextModelWithProjection.from_pretrained(part(family, "clip", "embedded-clip"))
        finally:
            set_verbosity(before)
        vae = AutoencoderKL.from_pretrained(part(family, "vae", "embedded-autoencoder"))
        tokenizer = CLIPTokenizer.from_pretrained(part(family, "tokenizer", "embedded-clip"))
        return cls(vae, Sight.load(family), tower, tokenizer).float().eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Any:
        """``image_embeds`` [B, D] of pictures [B, 3, S, S] in [-1, 1]."""
        latents = self.vae.encode(pixel_values).latent_dist.mode() * self.vae.config.scaling_factor
        return SimpleNamespace(image_embeds=self.of_latents(latents))

    @torch.no_grad()
    def of_latents(self, latents: Tensor) -> Tensor:
        """[B, D] of the autoencoder's latents [B, C, h, w], scaled to unit variance."""
        seen = self.sight(latents)
        return torch.stack([self._embedded(self.sight.caption(seen, k)) for k in range(len(latents))]).to(latents)

    def _embedded(self, caption: str) -> Tensor:
        """[D]; each sentence is embedded once."""
        if caption not in self._known:
            tokens = self.tokenizer(
                [caption], padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
            ).to(next(self.tower.parameters()).device)
            self._known[caption] = self.tower(**tokens).text_embeds[0]
        return self._known[caption]
