"""An object over a plain or gently graded background, told from it by colour: no network, and no more than that.

The background is a quadratic in the picture's coordinates per CIELAB channel, fitted robustly to the picture's border;
what is near it and reaches the border is background, what is far from it is object, and the pixels between are
decided by random walks (Grady 2006, "Random Walks for Image Segmentation").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import random_walker

from core.errors import UserError
from core.pictures.framing import resized_to
from core.pictures.matting import soft_edges

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

WORKING_SIDE = 320
LEAST_NOISE = 0.4  # CIELAB units: what 8 bits alone bring
GRAIN = 0.8  # beyond this a median over 3 x 3 pixels helps more than it harms
MOST_NOISE = 6.0  # beyond this a border is no plain background
_LEAST_HOLE, _HOLE_SHARE, _SPECK_SHARE = 12, 0.004, 0.01  # pixels; shares of the object
_ADVICE = "give a mask, or a picture with transparency"


def remove_background(rgb: F32, name: str, lossy: bool = False) -> F32:
    """[H, W] soft mask of the object in ``rgb`` [H, W, 3].

    Args:
        name: of the picture, for messages.
        lossy: whether compression (JPEG) smeared strong contrasts over their surroundings.

    Raises:
        UserError: the background is not plain, nothing stands out from it, or everything does.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    small = rgb if scale == 1 else resized_to(rgb, max(1, round(width * scale)), max(1, round(height * scale)))
    found = _segment(small, name, lossy)
    if scale < 1:
        found = resized_to(found.astype(np.float32), width, height) > 0.5
    return soft_edges(rgb, found, width=max(1, round(1 / scale)))


def _segment(rgb: F32, name: str, lossy: bool) -> Bool:
    lab = np.asarray(rgb2lab(rgb), np.float64)
    border = _border(lab.shape[:2])
    distance, noise = _distance(lab, border)
    if noise > GRAIN:
        lab = ndimage.median_filter(lab, size=(3, 3, 1))
        distance, noise = _distance(lab, border)
    if noise > MOST_NOISE:
        raise UserError(f"{name}: the background is not plain enough to be told from the object; {_ADVICE}")
    behind, front = _seeds(distance, noise, lossy)
    if not front.any():
        raise UserError(f"{name}: nothing stands out from the background; {_ADVICE}")
    if not behind.any():
        raise UserError(f"{name}: no background was found at the picture's edges; {_ADVICE}")
    found = _cleared(_decided(lab, behind, front))
    share, at_border = float(found.mean()), float(found[border].mean())
    if share < 0.001:
        raise UserError(f"{name}: nothing of any size stands out from the background; {_ADVICE}")
    if share > 0.95 or at_border > 0.6:
        raise UserError(f"{name}: nearly everything stands out, so the object cannot be told from the rest; {_ADVICE}")
    return found


def _distance(lab: NDArray[np.float64], border: Bool) -> tuple[NDArray[np.float64], float]:
    """[H, W] from the background's colour, and the standard deviation of the border about it."""
    distance = np.linalg.norm(lab - _background(lab, border), axis=-1)
    return distance, max(float(np.median(distance[border])) / 1.54, LEAST_NOISE)  # median of a unit normal 3-vector


def _border(shape: tuple[int, ...]) -> Bool:
    thickness = max(2, round(0.02 * max(shape)))
    border = np.ones(shape, bool)
    border[thickness:-thickness, thickness:-thickness] = False
    return border


def _background(lab: NDArray[np.float64], border: Bool) -> NDArray[np.float64]:
    """[H, W, 3]: the quadratic that most of the border agrees on (least squares, reweighted by Cauchy's weights)."""
    height, width = border.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    terms, seen = basis[border], lab[border]
    off = np.linalg.norm(seen - np.median(seen, 0), axis=-1)
    factors = np.zeros((6, 3))
    for _ in range(12):
        spread = max(1.5 * float(np.median(off)), LEAST_NOISE)
        root = np.sqrt(1 / (1 + (off / spread) ** 2))[:, None]
        factors = np.linalg.lstsq(terms * root, seen * root, rcond=None)[0]
        off = np.linalg.norm(seen - terms @ factors, axis=-1)
    return basis @ factors


def _seeds(distance: NDArray[np.float64], noise: float, lossy: bool) -> tuple[Bool, Bool]:
    """What is surely background and what is surely object."""
    low, high = max(1.5, 3.5 * noise), max(5.0, 7.0 * noise)
    if lossy and (distance > high).any():
        typical = float(np.median(distance[distance > high]))
        low, high = max(low, min(4.0, 0.06 * typical)), max(high, 0.3 * typical)
    near = distance < low
    labels, count = ndimage.label(near)
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    behind = np.isin(labels, rim[rim > 0])
    # An enclosed patch of the background's own colour is a hole (a handle's), unless it is as small as a highlight.
    index = np.arange(1, count + 1)
    areas, level = ndimage.sum_labels(near, labels, index), ndimage.mean(distance, labels, index)
    large = np.asarray(areas) > max(_LEAST_HOLE, _HOLE_SHARE * int((distance > high).sum()))
    holes = index[large & (np.asarray(level) < (0.75 if lossy else 0.6) * low)]
    return behind | np.isin(labels, holes), distance > high


def _decided(lab: NDArray[np.float64], behind: Bool, front: Bool) -> Bool:
    labels = np.where(front, 1, np.where(behind, 2, 0))
    if (labels > 0).all():
        return front
    walked = random_walker(lab / 100.0, labels, beta=1000, mode="cg_j", tol=1e-3, prob_tol=1.0, channel_axis=-1)
    return np.asarray(walked) == 1


def _cleared(found: Bool) -> Bool:
    """Without specks; several parts may stay."""
    labels, count = ndimage.label(found)
    if count < 2:
        return found
    areas = np.asarray(ndimage.sum_labels(found, labels, np.arange(1, count + 1)))
    return np.isin(labels, 1 + np.flatnonzero(areas >= _SPECK_SHARE * areas.max()))
