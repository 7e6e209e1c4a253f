"""Soft edges, and colours without the background that bled into them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
_SOLID = 0.98


def nearest_colour(rgb: F32, known: Bool) -> F32:
    """[H, W, 3]: each pixel's own colour where ``known`` [H, W], else that of the nearest known pixel."""
    if known.all() or not known.any():
        return rgb
    index = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return rgb[tuple(index)]


def cleaned(rgb: F32, mask: F32, straight: bool) -> F32:
    """[H, W, 3] colours of the object alone, continued over its edges.

    Args:
        straight: whether the file held the object's own colours (real alpha). Otherwise a pixel of the edge is a
            mixture with an unknown background, and takes the nearest colour from within.
    """
    if straight:
        return nearest_colour(rgb, mask > 0.1)
    solid = mask >= _SOLID
    inner = ndimage.binary_erosion(solid, border_value=1)
    # A part too thin to survive erosion keeps its own middle.
    kept = ndimage.binary_dilation(inner, iterations=2)
    known = inner | (solid & ~kept)
    return nearest_colour(rgb, known if known.any() else mask >= mask.max())


def soft_edges(rgb: F32, mask: Bool, width: int = 2) -> F32:
    """[H, W] coverage: 0 and 1 away from the mask's edge, and near it the share that explains the mixed colour.

    With F and B the nearest colours surely within and without, ``C = a F + (1 - a) B`` in least squares.

    Args:
        rgb: [H, W, 3].  mask: [H, W].  width: of the uncertain band to either side, pixels.
    """
    sides = ndimage.generate_binary_structure(2, 2)
    outer = ndimage.binary_dilation(mask, sides, iterations=width)
    inner = ndimage.binary_erosion(mask, sides, iterations=width, border_value=1)
    behind = nearest_colour(rgb, ~outer) if not outer.all() else rgb
    inner |= _ridges(np.linalg.norm(rgb - behind, axis=-1), mask & ~ndimage.binary_dilation(inner, sides, width + 1))
    alpha, band = mask.astype(np.float32), outer & ~inner
    if not band.any() or not inner.any() or outer.all():
        return alpha
    front = nearest_colour(rgb, inner)[band] - behind[band]
    reach = (front**2).sum(-1)
    share = ((rgb[band] - behind[band]) * front).sum(-1) / np.maximum(reach, 1e-9)
    alpha[band] = np.where(reach > 0.02**2, np.clip(share, 0.0, 1.0), alpha[band])
    return alpha


def _ridges(contrast: NDArray[np.floating], thin: Bool) -> Bool:
    """Of parts too thin to have an inside: the pixels that stand out most among their neighbours."""
    return thin & (contrast >= ndimage.maximum_filter(np.where(thin, contrast, 0), 3))
