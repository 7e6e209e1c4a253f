"""Words on sheets of pictures."""

from __future__ import annotations

from PIL import ImageDraw, ImageFont

INK, SOFT = (52, 52, 58), (140, 140, 148)
"""Colours of titles and of labels, sRGB bytes."""


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The picture library's own typeface at ``size`` pixels."""
    return ImageFont.load_default(size)


def clipped(
    draw: ImageDraw.ImageDraw, text: str, face: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float
) -> str:
    """``text``, cut with an ellipsis where it is wider than ``width`` pixels."""
    shown = text = " ".join(text.split())
    while text and draw.textlength(shown, font=face) > width:
        text = text[:-1]
        shown = text.rstrip() + "…"
    return shown
