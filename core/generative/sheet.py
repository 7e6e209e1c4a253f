"""What samples look like: a picture of each, and all of them on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from core.contracts import Scene
from core.lettering import INK, SOFT, clipped, font
from core.types import Cameras

AZIMUTH, ELEVATION = 35.0, 20.0  # degrees
_FINER = 2  # rendered so much larger, then filtered down


def picture_of(sample: Scene | Tensor, size: int = 256, azimuth: float = AZIMUTH) -> Image.Image:
    """A picture as it is; an object from ``azimuth`` degrees, at ``size`` pixels a side."""
    if isinstance(sample, Tensor):
        return _image(sample)
    where = torch.tensor([math.radians(azimuth)])
    cameras = Cameras.turntable(where, math.radians(ELEVATION), size * _FINER)
    renderer = sample.renderer
    with torch.no_grad():
        seen = renderer(cameras.to(renderer.context.device))
    return _image(seen.rgb[0]).resize((size, size), Image.Resampling.LANCZOS)


def _image(rgb: Tensor) -> Image.Image:
    values = (rgb.detach().float().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(np.ascontiguousarray(values.numpy()))


def sample_sheet(
    pictures: Sequence[Image.Image], title: str, labels: Sequence[str] | None = None, columns: int | None = None
) -> Image.Image:
    """Pictures of one size in a grid of ``columns`` (or wider than high), with their numbers (or ``labels``) below and
    a title above.

    Small pictures are enlarged by whole factors, so that their pixels stay what they are.

    Raises:
        ValueError: no picture.
    """
    if not pictures:
        raise ValueError("a sheet needs at least one picture")
    names = list(labels) if labels is not None else [f"{k:02d}" for k in range(len(pictures))]
    factor = max(1, 160 // pictures[0].width)
    width, height = pictures[0].width * factor, pictures[0].height * factor
    columns = min(columns or _columns(len(pictures)), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    gap, text = max(8, width // 24), max(11, width // 16)
    top = gap + text * 2
    sheet = Image.new("RGB", (gap + columns * (width + gap), top + rows * (height + text + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    face = font(round(text * 1.25))
    pen.text((gap, top / 2), clipped(pen, title, face, sheet.width - 2 * gap), INK, face, anchor="lm")
    for k, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        x, y = gap + k % columns * (width + gap), top + k // columns * (height + text + gap)
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
        pen.text((x + width / 2, y + height + text * 0.7), name, SOFT, font(text), anchor="mm")
    return sheet


def _columns(count: int) -> int:
    return 4 if count <= 4 or count in (8, 12, 16) else math.ceil(math.sqrt(count * 1.2))
