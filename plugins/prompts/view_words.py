"""Prompt ``view-words``: the sentence with the side it is seen from (Poole et al. 2022, section 3.2)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.contracts import PromptProcessor
from core.types import Cameras


class ViewWords(PromptProcessor):
    """Appends ``, front view`` within ``front`` degrees of azimuth 0, ``back`` opposite, ``side`` between them, and
    ``overhead`` above."""

    class Config(BaseConfig):
        front: float = Field(45.0, gt=0, lt=90)
        """Half width in degrees of the sectors called front and back."""
        overhead: float = Field(60.0, gt=0, le=90)
        """Elevation in degrees above which a view is called overhead."""
        perp_neg: float = Field(0.0, ge=0)
        """How strongly guidance moves away from the other sides' words (Perp-Neg, about 1); 0 is off."""

    def texts(self, prompt: str, cameras: Cameras) -> list[str]:
        pairs = zip(cameras.azimuth.tolist(), cameras.elevation.tolist(), strict=True)
        return [self.said(prompt, self.word(math.degrees(a), math.degrees(e))) for a, e in pairs]

    def said(self, prompt: str, word: str) -> str:
        """The sentence from the side called ``word``."""
        return f"{prompt}, {word} view"

    def away(self, prompt: str, cameras: Cameras) -> list[tuple[list[str], Tensor]]:
        """From behind, away from ``front view``; from the front, from ``back view``; both fade towards the side."""
        if not self.options.perp_neg:
            return []
        facing = torch.cos(cameras.azimuth) * self.options.perp_neg
        words = (("front", -facing), ("back", facing))
        return [([self.said(prompt, word)] * len(cameras), weight.clamp(min=0)) for word, weight in words]

    def word(self, azimuth: float, elevation: float) -> str:
        """front, side, back or overhead; degrees, any azimuth."""
        if elevation > self.options.overhead:
            return "overhead"
        turned = abs((azimuth + 180.0) % 360.0 - 180.0)
        if turned <= self.options.front:
            return "front"
        return "back" if turned >= 180.0 - self.options.front else "side"
