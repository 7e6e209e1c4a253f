"""The frozen CLIP under the three networks: token states, text embeddings, picture embeddings, all unnormalised.

Held as transformers' classes with a projection, which is what a folder in Karlo's layout holds.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.errors import UserError

log = logging.getLogger("maquette")

_WORD = re.compile(r"[a-z]+")
BATCH = 256
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation of pixels under OpenAI's CLIP."""


@dataclass(frozen=True)
class Told:
    """Texts as the networks hear them, one row per text.

    Attributes:
        states: [B, L, D] token states.  embedding: [B, D].  mask: [B, L] bool, False on padding.
    """

    states: Tensor
    embedding: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.embedding)

    def where(self, keep: Tensor, other: Told) -> Told:
        """These rows where ``keep`` [B], the ``other``'s (one row) elsewhere."""
        return Told(
            torch.where(keep[:, None, None], self.states, other.states),
            torch.where(keep[:, None], self.embedding, other.embedding),
            torch.where(keep[:, None], self.mask, other.mask),
        )

    def take(self, rows: Tensor) -> Told:
        """The given rows."""
        return Told(self.states[rows], self.embedding[rows], self.mask[rows])

    def to(self, device: torch.device) -> Told:
        """The same elsewhere."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    @classmethod
    def cat(cls, parts: list[Told]) -> Told:
        """Stacked along the batch."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in ("states", "embedding", "mask")))


class Tower:
    """CLIP's text and vision networks; no module, so its weights stay out of checkpoints: they are files already.

    Args:
        normal: mean and standard deviation of the pixels [0, 1] that the vision network expects, three numbers each.
    """

    def __init__(self, tokenizer: Any, text: Any, vision: Any, normal: tuple[Any, Any] = ((0.5,) * 3,) * 2) -> None:
        self.tokenizer = tokenizer
        self.text = text.float().eval().requires_grad_(False)
        self.vision: Any = None if vision is None else vision.float().eval().requires_grad_(False)
        self.normal = normal
        if text.config.hidden_size != text.config.projection_dim:
            raise UserError(
                f"this CLIP's token states have {text.config.hidden_size} numbers and its embeddings "
                f"{text.config.projection_dim}; the prior needs them alike (as in ViT-L/14)"
            )
        self.words = _known_words(tokenizer)
        self._warned: set[str] = set()
        self._texts: dict[str, Told] = {}

    @property
    def width(self) -> int:
        """D, numbers of an embedding."""
        return int(self.text.config.projection_dim)

    @property
    def length(self) -> int:
        """L, tokens of a text."""
        return int(self.text.config.max_position_embeddings)

    @property
    def size(self) -> int:
        """Side in pixels that the vision network looks at."""
        return int(self.vision.config.image_size)

    @classmethod
    def of_family(cls, family: str) -> Tower:
        """The CLIP of an embedded family, by the public metric ``clip``.

        Raises:
            UserError: the family has none, naming the fit that makes it.
        """
        from core.discovery import get_registry

        metric = get_registry().find("metric", "clip").load()
        found = metric(metric.Config(family=family), Context())
        return cls(found.tokenizer, *_halves(found.model))

    @classmethod
    def of_clip(cls, folder: Path) -> Tower:
        """A whole CLIP in transformers' format, such as OpenAI's ViT-L/14.

        Raises:
            UserError: there is none.
        """
        from transformers import CLIPModel, CLIPTokenizer

        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no CLIP in transformers' format: it has no config.json")
        tokenizer = CLIPTokenizer.from_pretrained(folder, pad_token="!")  # id 0, as Karlo pads
        return cls(tokenizer, *_halves(CLIPModel.from_pretrained(folder)), OPENAI)

    def check(self, text: str) -> None:
        """Warn, once each, of the words that CLIP never saw."""
        new = [w for w in _WORD.findall(text.lower()) if self.words and w not in self.words and w not in self._warned]
        if new:
            self._warned.update(new)
            log.warning(
                "this CLIP never saw the word%s %s, so nothing of it will be in the picture",
                "s" if len(new) > 1 else "", ", ".join(map(repr, dict.fromkeys(new))),
            )  # fmt: skip

    @torch.no_grad()
    def tell(self, texts: list[str]) -> Told:
        """Texts as the networks hear them; each text is read once and kept."""
        new = [t for t in dict.fromkeys(texts) if t not in self._texts]
        for k in range(0, len(new), BATCH):
            part = new[k : k + BATCH]
            tokens = self.tokenizer(
                part, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
            ).to(self.text.device)
            with torch.autocast(self.text.device.type, enabled=False):  # read alike in training and in sampling
                out = self.text(tokens.input_ids)
            told = Told(out.last_hidden_state, out.text_embeds, tokens.attention_mask.bool())
            self._texts |= {text: told.take(torch.tensor([row])) for row, text in enumerate(part)}
        return Told.cat([self._texts[t] for t in texts])

    @torch.no_grad()
    def see(self, rgb: Tensor) -> Tensor:
        """[B, D] embeddings of pictures [B, H, W, 3] in [0, 1] of any size."""
        x = rgb.movedim(-1, 1).to(self.text.device)
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in self.normal)
        with torch.autocast(x.device.type, enabled=False):
            return self.vision(pixel_values=(x.clamp(0, 1) - mean) / std).image_embeds

    def to(self, device: torch.device) -> Tower:
        """Moved in place."""
        if device != self.text.device:
            self.text.to(device)
            if self.vision is not None:
                self.vision.to(device)
            self._texts.clear()
        return self


def _halves(clip: Any) -> tuple[Any, Any]:
    """Both networks of a whole CLIP, each with its projection."""
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    parts = (CLIPTextModelWithProjection(clip.config.text_config),
             CLIPVisionModelWithProjection(clip.config.vision_config))  # fmt: skip
    whole = clip.state_dict()
    for part in parts:
        part.load_state_dict({key: whole[key] for key in part.state_dict()})
    return parts


def _known_words(tokenizer: Any) -> set[str]:
    """The words a small CLIP was trained on; empty where nobody wrote them down, as for the public ones."""
    path = Path(str(tokenizer.name_or_path)) / "words.json"
    return set(json.loads(path.read_text())) if path.is_file() else set()
