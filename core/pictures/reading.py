"""Picture files of every common kind as arrays: upright, sRGB, [0, 1]."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from core.errors import UserError

log = logging.getLogger("maquette")
F32 = NDArray[np.float32]

MAX_PIXELS = 1 << 27
"""A larger picture is refused: decoding it would take over half a gigabyte."""
MAX_SIDE = 1024
"""A longer side is shrunk to at most this before anything else, by a whole factor."""
MIN_SIDE = 8
_LOSSY = ("JPEG", "MPO", "WEBP")
_KINDS = "PNG, JPEG, WebP, TIFF, GIF and BMP can"


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        rgb: [H, W, 3] sRGB in [0, 1], not multiplied by alpha.
        alpha: [H, W] in [0, 1], or None where the file is opaque throughout.
        size: (width, height) of the file, upright.  path: where it came from.
        lossy: whether its format compresses with loss.
    """

    rgb: F32
    alpha: F32 | None
    size: tuple[int, int]
    path: Path
    lossy: bool = False


def read_picture(path: Path) -> Picture:
    """Decode a file: EXIF rotation, colour profile, palette, grey, CMYK and 16 bits become upright sRGB.

    Of an animation the first frame is taken. Long sides are shrunk below ``MAX_SIDE``.

    Raises:
        UserError: there is no such file, or it is empty, truncated, no picture, too large, too small or not finite.
    """
    with _opened(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            log.info("%s holds %d frames; the first is taken", path, getattr(image, "n_frames", 1))
        turned = image.getexif().get(0x0112, 1) >= 5  # the orientations that swap the sides
        size = (image.height, image.width) if turned else (image.width, image.height)
        factor = -(-max(size) // MAX_SIDE)
        if factor > 1:
            log.info("%s is %d x %d pixels; it is shrunk %d times", path, *size, factor)
            image.draft(None, (image.width // factor, image.height // factor))  # JPEG decodes small at once
        values, lossy = _values(image, path, size), image.format in _LOSSY
    _check_finite(values, path)
    rgb, alpha = values[..., :3], values[..., 3] if values.shape[2] == 4 else None
    if alpha is not None and alpha.min() > 254.5 / 255:
        alpha = None
    return Picture(np.ascontiguousarray(rgb), alpha, size, path, lossy)


def read_mask(path: Path, size: tuple[int, int], shape: tuple[int, int]) -> F32:
    """[H, W] in [0, 1] of a mask file: its alpha where that varies, else its brightness.

    Args:
        size: (width, height) that the file must have.  shape: (H, W) to give.

    Raises:
        UserError: as :func:`read_picture`; or the mask is of another size, or empty.
    """
    picture = _fitting(path, "mask", size, shape)
    mask = picture.rgb.mean(-1) if picture.alpha is None else picture.alpha
    if mask.max() < 0.5:
        raise UserError(f"the mask {path} is empty: no pixel is brighter than a half, so it marks no object")
    return mask.astype(np.float32)


def read_map(path: Path, what: str, like: Picture) -> F32:
    """[H, W, 3] in [0, 1], the colours of a file that goes with the picture ``like``, pixel by pixel.

    Raises:
        UserError: as :func:`read_picture`; or the file is of another size; ``what`` it is opens the sentence.
    """
    return _fitting(path, what, like.size, like.rgb.shape[:2]).rgb


def _fitting(path: Path, what: str, size: tuple[int, int], shape: tuple[int, ...]) -> Picture:
    picture = read_picture(path)
    if picture.size != size:
        theirs, mine = (f"{w} x {h}" for w, h in (size, picture.size))
        raise UserError(f"the {what} {path} is {mine} pixels, but its picture is {theirs}; they must be of one size")
    if picture.rgb.shape[:2] != shape:
        raise UserError(f"the {what} {path} could not be brought to the size of its picture")
    return picture


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.exists():
        raise UserError(f"there is no picture {path}")
    if not path.is_file():
        raise UserError(f"{path} is a folder, not a picture")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes), not a picture")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own limit follows, as a sentence
    try:
        with Image.open(path) as image:
            _check_size(image, path)
            yield image
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture that can be read ({_KINDS})") from None
    except (OSError, SyntaxError, EOFError, ValueError, MemoryError) as error:
        raise UserError(f"{path} is damaged or cut off, and cannot be decoded: {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        most = round(MAX_PIXELS / 1e6)
        raise UserError(f"{path} is {width} x {height} pixels; at most {most} million can be read: make it smaller")
    if min(width, height) < MIN_SIDE:
        raise UserError(f"{path} is {width} x {height} pixels; both sides need at least {MIN_SIDE}")


def _values(image: Image.Image, path: Path, size: tuple[int, int]) -> F32:
    """[H, W, 3 or 4] in [0, 1], upright, sRGB, shrunk from ``size`` (of the file, upright)."""
    if image.mode.startswith(("I", "F")):
        grey = _deep_grey(image)
        upright = ImageOps.exif_transpose(_tagged(Image.fromarray(grey), image))
        return np.repeat(np.asarray(_shrunk(upright, size))[..., None], 3, -1)
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    opaque = upright.mode in ("RGB", "L", "CMYK", "YCbCr", "LAB", "HSV", "1") and "transparency" not in upright.info
    if profile and upright.mode in ("RGB", "CMYK", "L"):
        upright = _to_srgb(upright, profile, path)
    return np.asarray(_shrunk(upright.convert("RGB" if opaque else "RGBA"), size), np.float32) / np.float32(255)


def _deep_grey(image: Image.Image) -> F32:
    """Grey of more than 8 bits: integers by the range of 16 bits, reals by their largest where that is above 1."""
    values = np.asarray(image).astype(np.float32)
    if image.mode.startswith("I"):
        return values / 65535.0
    most = float(values.max())
    return values / most if math.isfinite(most) and most > 1.0 else values


def _tagged(made: Image.Image, source: Image.Image) -> Image.Image:
    made.getexif().update(dict(source.getexif()))
    return made


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """To a size that follows from the file's own alone, so that a mask shrinks as its picture does."""
    factor = -(-max(size) // MAX_SIDE)
    wanted = (-(-size[0] // factor), -(-size[1] // factor))
    return image if image.size == wanted else image.resize(wanted, Image.Resampling.BOX, reducing_gap=2.0)


def _to_srgb(image: Image.Image, profile: bytes, path: Path) -> Image.Image:
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        log.warning("%s: its colour profile cannot be used (%s); its colours are taken as sRGB", path, error)
        return image
    return image if made is None else made


def _check_finite(values: F32, path: Path) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are no finite numbers")
    np.clip(values, 0.0, 1.0, out=values)
