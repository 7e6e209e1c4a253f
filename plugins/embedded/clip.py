"""Fits the family's CLIP: a text and a vision tower that agree on which caption belongs to which picture."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Step, Task
from plugins.embedded.card import training_facts
from plugins.embedded.family import family_folder, record, save_half
from plugins.embedded.tokenizer import MAX_LENGTH, train_tokenizer


def matches(batch: dict[str, Any], told: Tensor) -> Tensor:
    """[B, B] bool: text i (rows) is true of picture j: same kind, colour and material, and same view where told."""
    same = torch.ones(len(told), len(told), dtype=torch.bool)
    for key in ("category", "color", "material"):
        same &= batch[key][:, None] == batch[key][None, :]
    words = {w: k for k, w in enumerate(sorted(set(batch["view_word"])))}
    view = torch.tensor([words[w] for w in batch["view_word"]])
    return same & ((view[:, None] == view[None, :]) | ~told[:, None])


def captions_with_views(batch: dict[str, Any], told: Tensor) -> list[str]:
    """The captions, with ", front view" and the like where ``told`` [B]."""
    rows = zip(batch["caption"], batch["view_word"], told.tolist(), strict=True)
    return [f"{caption}, {word}" if t else caption for caption, word, t in rows]


class EmbeddedClip(Task):
    """Contrastive loss (Radford et al. 2021, fig. 3) with every true pair of a batch as a positive."""

    class Config(BaseConfig):
        data: Annotated[ComponentSpec, Slot("data")]
        """Captioned pictures."""
        family: str = "built-in"
        """Folder of the family that is filled, or `built-in`."""
        width: int = Field(128, ge=32, multiple_of=32)
        """Width of both towers; 32 for each head."""
        layers: int = Field(4, ge=1)
        """Layers of each tower."""
        patch: int = Field(16, ge=1)
        """Side of a vision patch in pixels."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data)  # type: ignore[misc]
        texts = [f"{c}, {v}" for c, v in zip(self.data.pool["caption"], self.data.pool["view_word"], strict=True)]
        folder = family_folder(options.family)
        self.tokenizer = train_tokenizer(texts, folder / "tokenizer")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("clip").initial_seed() % 2**32)
            self.model = self._build()

    def _build(self) -> Any:
        from transformers import CLIPConfig, CLIPModel

        o = self.options
        tower = {"hidden_size": o.width, "intermediate_size": 4 * o.width, "num_hidden_layers": o.layers}
        tower |= {"num_attention_heads": o.width // 32, "projection_dim": o.width}
        ids = {"bos_token_id": self.tokenizer.bos_token_id, "eos_token_id": self.tokenizer.eos_token_id}
        text = tower | ids | {"vocab_size": len(self.tokenizer), "max_position_embeddings": MAX_LENGTH}
        vision = tower | {"image_size": self.data.options.size, "patch_size": o.patch}
        text["pad_token_id"] = ids["eos_token_id"]
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=o.width))

    def training_step(self, step: Step) -> dict[str, Tensor]:
        batch = self.data.batch(step)
        told = torch.rand(len(batch["caption"]), generator=step.generator("told")) < 0.4
        device = self.model.logit_scale.device
        logits = self._logits(captions_with_views(batch, told), batch["rgb"].to(device))
        true = matches(batch, told).to(device, torch.float32)
        loss = sum(
            F.cross_entropy(z, y / y.sum(1, keepdim=True)) for z, y in ((logits, true), (logits.T, true.T))
        )
        step.log(accuracy=float(true.gather(1, logits.argmax(1, keepdim=True)).mean()))
        return {"contrastive": loss / 2}  # type: ignore[dict-item]

    def _logits(self, texts: list[str], rgb: Tensor) -> Tensor:
        """[B texts, B pictures]."""
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        ).to(rgb.device)
        pixels = rgb.permute(0, 3, 1, 2) * 2 - 1
        out = self.model(**tokens, pixel_values=pixels)
        return out.logits_per_text.float()

    def finish(self, run: Any) -> None:
        """Save ``clip/`` (both towers, for measuring) and ``text_encoder/`` (what the UNet listens to)."""
        from transformers import CLIPTextModel

        folder = family_folder(self.options.family)
        save_half(self.model, folder / "clip")
        text = CLIPTextModel(self.model.config.text_config)
        source = self.model.text_model.state_dict()
        own = set(text.state_dict())
        text.load_state_dict({(k if k in own else f"text_model.{k}"): v for k, v in source.items()})
        save_half(text, folder / "text_encoder")
        facts = {"parameters": sum(p.numel() for p in self.model.parameters())}
        record(self.options.family, "clip", facts | training_facts(run, self))
