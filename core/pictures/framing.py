"""Cutting a square out of a picture, and resizing it without aliasing and without a rim of the old background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

F32 = NDArray[np.float32]
Square = tuple[float, float, float]
"""Left, top and side in pixels; may reach beyond the picture."""


def bounding_box(mask: F32) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of where a mask [H, W] is above a half; it must be somewhere."""
    rows, columns = (np.flatnonzero((mask > 0.5).any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def around_object(mask: F32, share: float) -> Square:
    """The square about the middle of the object's bounding box whose side the box's longer one takes ``share`` of."""
    left, top, right, bottom = bounding_box(mask)
    side = max(right - left, bottom - top) / share
    return (left + right - side) / 2, (top + bottom - side) / 2, side


def around_picture(shape: tuple[int, ...]) -> Square:
    """The smallest square about the middle of a picture that holds it."""
    height, width = shape[:2]
    side = float(max(height, width))
    return (width - side) / 2, (height - side) / 2, side


def cut(rgb: F32, mask: F32, square: Square, size: int) -> tuple[F32, F32]:
    """The square resampled to ``size`` pixels: rgb [S, S, 3] (not multiplied by the mask) and mask [S, S].

    Args:
        rgb: [H, W, 3]; beyond the mask it should continue the object's colours.  mask: [H, W]; 0 beyond the picture.
    """
    if square == (0.0, 0.0, float(size)) and mask.shape == (size, size):
        return rgb.copy(), mask.copy()
    mask, rgb, box = _padded(mask, rgb, square)
    cover = _resized(mask, box, size)
    channels = []
    for c in range(3):
        plain = _resized(np.ascontiguousarray(rgb[..., c]), box, size)
        weighted = _resized(rgb[..., c] * mask, box, size)  # only what the mask holds has a say in the colour
        channels.append(np.where(cover > 0.05, weighted / np.maximum(cover, 0.05), plain))
    return np.clip(np.stack(channels, -1), 0.0, 1.0).astype(np.float32), np.clip(cover, 0.0, 1.0)


def _padded(mask: F32, rgb: F32, square: Square) -> tuple[F32, F32, tuple[float, float, float, float]]:
    """The part of a picture that a square needs, padded where it reaches beyond, and the square's box in it."""
    (left, top, side), (height, width) = square, mask.shape
    x0, y0 = int(np.floor(left)) - 1, int(np.floor(top)) - 1
    x1, y1 = int(np.ceil(left + side)) + 1, int(np.ceil(top + side)) + 1
    inside = slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width))
    pad = (max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0))
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    return np.pad(mask[inside], pad), np.pad(rgb[inside], (*pad, (0, 0)), mode="edge"), box


def _resized(channel: F32, box: tuple[float, float, float, float], size: int) -> F32:
    image = Image.fromarray(np.asarray(channel, np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box), np.float32)


def resized_to(values: F32, width: int, height: int) -> F32:
    """[H, W] or [H, W, C] to another size, by area when smaller."""
    if values.ndim == 3:
        channels = (np.ascontiguousarray(values[..., c]) for c in range(values.shape[2]))
        return np.stack([resized_to(c, width, height) for c in channels], -1)
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR), np.float32)
