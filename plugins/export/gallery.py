"""Single pictures for a page, and the row that shows a prompt with its depth and its colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from pydantic import Field

from core.contracts import Exporter, Scene
from core.lettering import font
from plugins.export.assets import destination
from plugins.export.views import Picture, ViewConfig, views

_INK = (52, 52, 58)


def gallery_row(prompt: str, *pictures: Picture) -> Image.Image:
    """``prompt | picture | picture ...`` side by side, the prompt set in a white square.

    Args:
        pictures: each [S, S, 3] bytes of one size; depth first, then colour, is the usual order.

    Raises:
        ValueError: no picture.
    """
    if not pictures:
        raise ValueError("a row needs at least one picture")
    size = pictures[0].shape[0]
    return Image.fromarray(np.concatenate([np.asarray(_words(prompt, size)), *pictures], 1))


def _words(prompt: str, size: int) -> Image.Image:
    """The prompt in the middle of a white square, as large as it fits."""
    square = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(square)
    for text in range(max(size // 9, 8), 7, -1):
        face, lines = font(text), [""]
        for word in prompt.split():
            longer = f"{lines[-1]} {word}".strip()
            fits = draw.textlength(longer, font=face) <= size * 0.84
            lines = [*lines[:-1], longer] if fits or not lines[-1] else [*lines, word]
        block = "\n".join(lines)
        box = draw.multiline_textbbox((0, 0), block, font=face, spacing=text // 3)
        if box[2] - box[0] <= size * 0.88 and box[3] - box[1] <= size * 0.88:
            break
    draw.multiline_text((size / 2, size / 2), block, _INK, face, anchor="mm", align="center", spacing=text // 3)
    return square


class GalleryExporter(Exporter):
    """Writes ``<name>-rgb.png`` and ``<name>-depth.png``."""

    class Config(ViewConfig):
        azimuth: float = 35.0
        """Degrees from the front, counter-clockwise seen from above."""
        elevation: float = Field(20.0, ge=-90, le=90)
        """Degrees above the horizon."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        seen = views(scene, self.options, torch.tensor([self.options.azimuth]))
        for suffix, pictures in (("-rgb.png", seen.rgb), ("-depth.png", seen.depth)):
            if pictures is not None:
                path = destination(scene, folder, suffix)
                Image.fromarray(pictures[0]).save(path)
                yield path
