"""Prompt ``same``: every view hears the sentence itself (for priors that are told the camera)."""

from __future__ import annotations

from core.contracts import PromptProcessor
from core.types import Cameras


class Same(PromptProcessor):
    """One copy per camera."""

    def texts(self, prompt: str, cameras: Cameras) -> list[str]:
        return [prompt] * len(cameras)
