"""A contact sheet: the object from several sides, as colour, depth and normals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from pydantic import Field

from core.contracts import Exporter, Scene
from core.lettering import INK, SOFT, clipped, font
from plugins.export.assets import destination
from plugins.export.views import Picture, ViewConfig, views


def contact_sheet(rows: dict[str, Picture], columns: list[str], title: str = "") -> Image.Image:
    """Rows of pictures with their names at the left, those of the columns below and a title above.

    Args:
        rows: each [B, S, S, 3] bytes, by name.  columns: B names.
    """
    size = next(iter(rows.values())).shape[1]
    gap, left, text = max(4, size // 32), max(24, size // 7), max(10, size // 14)
    top = gap * 2 + (text * 2 if title else 0)
    width = left + len(columns) * (size + gap) + gap
    height = top + len(rows) * (size + gap) + text * 2 + gap
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        face = font(round(text * 1.3))
        draw.text((left, top / 2), clipped(draw, title, face, width - left - gap), INK, face, anchor="lm")
    for r, (name, pictures) in enumerate(rows.items()):
        y = top + r * (size + gap)
        sheet.paste(_upright(name, size, left - gap, text), (gap // 2, y))
        for c, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left + c * (size + gap), y))
    for c, name in enumerate(columns):
        draw.text((left + c * (size + gap) + size / 2, height - text - gap), name, SOFT, font(text), anchor="mm")
    return sheet


def _upright(name: str, length: int, width: int, text: int) -> Image.Image:
    """A label that reads upwards."""
    label = Image.new("RGB", (length, width), "white")
    ImageDraw.Draw(label).text((length / 2, width / 2), name, SOFT, font(text), anchor="mm")
    return label.transpose(Image.Transpose.ROTATE_90)


class SheetExporter(Exporter):
    """Writes ``<name>-sheet.png``."""

    class Config(ViewConfig):
        size: int = Field(192, ge=16, le=2048)
        """Side of one picture in pixels."""
        columns: int = Field(6, ge=1, le=24)
        """Azimuths, evenly spread; the first is the front."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        azimuths = torch.arange(self.options.columns) * (360 / self.options.columns)
        seen = views(scene, self.options, azimuths)
        rows = {"colour": seen.rgb, "depth": seen.depth, "normals": seen.normal}
        known = {name: pictures for name, pictures in rows.items() if pictures is not None}
        names = [f"{a:g}°" for a in azimuths.tolist()]
        path = destination(scene, folder, "-sheet.png")
        contact_sheet(known, names, scene.prompt).save(path)
        yield path
