"""Where the object is in a picture: its alpha, a mask file, rembg's network, or the classical method."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError, did_you_mean
from core.pictures.classical import remove_background
from core.pictures.reading import Picture, read_mask

log = logging.getLogger("maquette")
F32 = NDArray[np.float32]

BackgroundRemoval = Literal["auto", "alpha", "none", "rembg", "classical"]
WAYS = ("auto", "alpha", "none", "rembg", "classical")
_REMBG_MODEL = "u2net"


def object_mask(picture: Picture, mask: Path | None, way: BackgroundRemoval) -> tuple[F32, bool]:
    """[H, W] soft mask, and whether the picture's colours are the object's own right up to its edges.

    Args:
        mask: a file that marks the object; it goes before everything else.
        way: ``auto`` takes real alpha, else rembg where it and its weights are there, else the classical method.

    Raises:
        UserError: the way is unknown or cannot be gone, or no object is left.
    """
    if way not in WAYS:
        raise UserError(f"background removal '{way}' is not known.{did_you_mean(way, WAYS)}")
    if mask is not None:
        return read_mask(mask, picture.size, picture.rgb.shape[:2]), False
    if way == "none":
        return np.ones(picture.rgb.shape[:2], np.float32), True
    alpha = picture.alpha
    if alpha is not None and alpha.max() < 0.5:
        raise UserError(f"{picture.path} is transparent throughout, so it shows no object")
    if way in ("auto", "alpha") and alpha is not None and alpha.min() < 0.5:
        return alpha, True
    if way == "alpha":
        raise UserError(f"{picture.path} has no transparent background to take the object's mask from")
    rgb = picture.rgb if alpha is None else picture.rgb * alpha[..., None] + 0.5 * (1 - alpha[..., None])
    if way == "rembg" or (way == "auto" and rembg_weights() is not None):
        return _by_rembg(rgb, picture.path), False
    log.info("%s: the background is removed by colour alone (classical, no network)", picture.path)
    return remove_background(rgb, str(picture.path), picture.lossy), False


def rembg_weights() -> Path | None:
    """The weights that rembg would use, where it is installed and they are on disk; nothing is ever downloaded."""
    if importlib.util.find_spec("rembg") is None:
        return None
    home = os.environ.get("U2NET_HOME") or Path(os.environ.get("XDG_DATA_HOME", "~")) / ".u2net"
    weights = Path(home).expanduser() / f"{_REMBG_MODEL}.onnx"
    return weights if weights.is_file() else None


def _by_rembg(rgb: F32, path: Path) -> F32:
    if importlib.util.find_spec("rembg") is None:
        raise UserError("background removal by rembg was asked for, but the package rembg is not installed")
    weights = rembg_weights()
    if weights is None:
        raise UserError(f"rembg's weights {_REMBG_MODEL}.onnx are not on disk, and they are never downloaded from here")
    import rembg  # type: ignore[import-not-found, unused-ignore]

    log.info("%s: the background is removed by rembg (%s)", path, weights.name)
    before = os.environ.get("MODEL_CHECKSUM_DISABLED")
    os.environ["MODEL_CHECKSUM_DISABLED"] = "1"  # with a checksum that differs it would download
    try:
        session: Any = rembg.new_session(_REMBG_MODEL)
        made = rembg.remove(Image.fromarray(np.uint8(np.round(rgb * 255))), session=session, only_mask=True)
    finally:
        if before is None:
            del os.environ["MODEL_CHECKSUM_DISABLED"]
        else:
            os.environ["MODEL_CHECKSUM_DISABLED"] = before
    mask = np.asarray(made, np.float32) / np.float32(255)
    if mask.max() < 0.5:
        raise UserError(f"{path}: rembg found no object; give a mask")
    return mask
