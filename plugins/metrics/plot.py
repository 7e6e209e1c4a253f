"""A small line plot, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

COLORS = ("#1f6fb2", "#c8553d", "#6a8d3a", "#8a5fa8", "#c99a2e", "#3d8f8a")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 440, 66, 24, 24, 56


def line_plot(
    path: Path, xs: Sequence[float], curves: Mapping[str, Sequence[float]], x_label: str, y_label: str
) -> None:
    """One line per curve, values at ``xs``; the axes hold whole steps of the values' range."""
    from PIL import Image, ImageDraw, ImageFont

    scale = 2  # drawn large and reduced: PIL's lines are not smooth
    image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13 * scale)
    values = [v for curve in curves.values() for v in curve]
    step = _step(max(values) - min(values))
    low, high = step * (min(values) // step), step * -(-max(values) // step)
    high = high if high > low else low + step

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / ((xs[-1] - xs[0]) or 1)
        up = (y - low) / (high - low)
        return (
            scale * (LEFT + across * (WIDTH - LEFT - RIGHT)),
            scale * (HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)),
        )

    for k in range(round((high - low) / step) + 1):
        level = low + k * step
        draw.line([at(xs[0], level), at(xs[-1], level)], "#e4e4e4", scale)
        draw.text((scale * (LEFT - 8), at(xs[0], level)[1]), f"{level:g}", "#555555", font, anchor="rm")
    for x in xs[:: max(1, len(xs) // 8)]:
        draw.text((at(x, low)[0], scale * (HEIGHT - BOTTOM + 8)), f"{x:g}", "#555555", font, anchor="mt")
    draw.text((scale * (LEFT + WIDTH - RIGHT) / 2, scale * (HEIGHT - 8)), x_label, "#333333", font, anchor="mb")
    draw.text((scale * 8, scale * 4), y_label, "#333333", font)
    for k, (name, curve) in enumerate(curves.items()):
        color = COLORS[k % len(COLORS)]
        draw.line([at(x, y) for x, y in zip(xs, curve, strict=True)], color, 2 * scale, joint="curve")
        draw.text((scale * (WIDTH - RIGHT - 8), scale * (TOP + 6 + 20 * k)), name, color, font, anchor="rt")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(path)


def _step(extent: float) -> float:
    """1, 2 or 5 times a power of ten, so that the range holds four to ten steps."""
    power = 10.0 ** len(str(int(extent))) / 100 if extent >= 1 else 0.01
    return next(s for m in (1, 2, 5, 10, 20, 50, 100) if extent / (s := m * power) <= 8)
