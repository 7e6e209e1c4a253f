"""Metrics ``judge`` and ``clip``: what a turntable shows, by the family's classifier and by its CLIP."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Context, Metric
from core.types import Render
from plugins.embedded.classifier import VIEWS, Classifier
from plugins.embedded.family import part

FRONT_BEHIND = 1 / 3
"""A front view is one within 45 degrees of the front, so the views from behind get a half or more of a second one."""


def pictures(renders: Render, size: int = 64) -> Tensor:
    """[B, size, size, 3] of any render."""
    return resized(renders.rgb.detach().float().cpu(), size)


def resized(rgb: Tensor, size: int = 64) -> Tensor:
    """[B, size, size, 3] of pictures [B, H, W, 3]."""
    rgb = rgb.permute(0, 3, 1, 2)
    return F.interpolate(rgb, size=(size, size), mode="bilinear", antialias=True).permute(0, 2, 3, 1).clamp(0, 1)


class Judge(Metric):
    """Category, colour and Janus of a turntable.

    ``category`` and ``color`` are 1 when the mean probability over the views is highest for what the prompt names
    (colour among named colours only); absent when it names none. ``janus`` is 1 when the views from behind (azimuth 135
    to 225 degrees) are called front views with a mean probability over ``FRONT_BEHIND``; `eval embedded` tells how
    often that is a false alarm on true objects, and how often two true fronts are found.
    """

    class Config(BaseConfig):
        family: str = "built-in"
        """Folder of the family, or `built-in`."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.classifier = Classifier.load(options.family)

    @torch.no_grad()
    def measure(self, renders: Render, prompt: str) -> dict[str, float]:
        logits = self.classifier(pictures(renders))
        category, color = self.classifier.expected(prompt)
        out: dict[str, float] = {}
        if category is not None:
            mean = logits["category"].softmax(1).mean(0)
            out |= {"category": float(int(mean.argmax()) == category), "category_probability": float(mean[category])}
        if color is not None:
            named = [k for k, c in enumerate(self.classifier.colors) if c != "natural"]
            mean = logits["color"][:, named].softmax(1).mean(0)
            out |= {"color": float(named[int(mean.argmax())] == color)}
            out["color_probability"] = float(mean[named.index(color)])
        behind = renders.cameras.azimuth.cpu().abs() > math.radians(134)
        front = logits["view"].softmax(1)[:, VIEWS.index("front view")]
        out["janus"] = float(bool(behind.any()) and bool(front[behind].mean() > FRONT_BEHIND))
        return out


class ClipPrecision(Metric):
    """CLIP R-precision (Park et al. 2021; Jain et al. 2022): is the prompt the views' best match among distractors?

    Distractors are every colour with every category, 377 captions; ``r_precision`` is 1 or 0 on the mean similarity of
    the views, ``clip_score`` the mean cosine.
    """

    class Config(BaseConfig):
        family: str = "built-in"
        """Folder of the family, or `built-in`."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()

        self.model = CLIPModel.from_pretrained(part(options.family, "clip", "embedded-clip")).float().eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(part(options.family, "tokenizer", "embedded-clip"))
        judge = Classifier.load(options.family)
        colors = [f"{c} " for c in judge.colors if c != "natural"] + [""]
        self.distractors = [f"a {color}{nouns[0]}" for nouns in judge.nouns.values() for color in colors]
        self.known = judge

    @torch.no_grad()
    def text(self, texts: list[str]) -> Tensor:
        """[N, D] unit vectors."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        out = self.model.text_model(**tokens).pooler_output
        return F.normalize(self.model.text_projection(out), dim=-1)

    @torch.no_grad()
    def image(self, rgb: Tensor) -> Tensor:
        """[N, D] unit vectors of [N, 64, 64, 3] pictures in [0, 1]."""
        out = self.model.vision_model(pixel_values=rgb.permute(0, 3, 1, 2) * 2 - 1).pooler_output
        return F.normalize(self.model.visual_projection(out), dim=-1)

    def patch_features(self, rgb: Tensor) -> list[Tensor]:
        """Of pictures [N, H, W, 3] in [0, 1], the states [N, L, D] of the vision tower's patches after each layer;
        differentiable."""
        pixels = resized(rgb).permute(0, 3, 1, 2) * 2 - 1
        found = self.model.vision_model(pixel_values=pixels.to(self.model.device), output_hidden_states=True)
        return [states[:, 1:].to(rgb.device) for states in found.hidden_states[1:]]

    def embed_pictures(self, rgb: Tensor) -> Tensor:
        """[N, D] unit vectors of pictures [N, H, W, 3] of any size."""
        return self.image(resized(rgb))

    def measure(self, renders: Render, prompt: str) -> dict[str, float]:
        asked = self.known.expected(prompt)
        others = [d for d in self.distractors if self.known.expected(d) != asked]
        similarity = (self.image(pictures(renders)) @ self.text([prompt, *others]).T).mean(0)
        return {"r_precision": float(similarity.argmax() == 0), "clip_score": float(similarity[0])}
