"""A picture of what the generator makes: one row per category."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.procedural.categories import CATEGORIES
from plugins.procedural.dataset import DISTANCES, FOV_Y_DEG, orbit
from plugins.procedural.objects import ProceduralObject, make_object
from plugins.procedural.splits import SEED_RANGES
from plugins.procedural.tracer import render

AZIMUTHS_DEG = (20.0, 110.0, 200.0, 290.0)
GAP = 4


def object_row(item: ProceduralObject, size: int, elevation_deg: float = 20.0) -> NDArray[np.uint8]:
    """One object's strip, uint8 [size, 6 size, 3]: rgb from four azimuths, then depth (near is bright) and normals."""
    azimuth = np.radians(AZIMUTHS_DEG)
    distance = sum(DISTANCES) / 2
    cameras = orbit(azimuth, np.full(4, math.radians(elevation_deg)), np.full(4, distance))
    out = render([item], cameras, math.radians(FOV_Y_DEG), size, size, 3)
    depth, seen = out["depth"][0], out["depth"][0] > 0
    near = np.where(seen, np.clip(0.5 - 0.5 * (depth - distance), 0.0, 1.0), 0.0)
    tiles = [
        *out["rgb"],
        np.repeat(near[..., None], 3, -1),
        np.where(seen[..., None], out["normal"][0] / 2 + 0.5, 0.0),
    ]
    return (np.concatenate(tiles, 1) * 255.0 + 0.5).astype(np.uint8)


def contact_sheet(
    path: str | Path, *seeds: int, size: int = 96, categories: tuple[str, ...] = (), **choices: Any
) -> NDArray[np.uint8]:
    """Write a PNG with one row per category and, side by side, one strip per seed (by default the first test seed).

    size: a tile's side in pixels. categories: which ones, all by default. choices: `color` and `material` for
    `make_object`. Returns the picture, uint8 [H,W,3].
    """
    from imageio.v3 import imwrite

    seeds = seeds or (SEED_RANGES["test"].start,)
    rows = []
    for category in categories or tuple(CATEGORIES):
        strips = [object_row(make_object(seed, category, **choices), size) for seed in seeds]
        gap = np.full((size, GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([part for strip in strips for part in (strip, gap)][:-1], 1))
    sheet = np.concatenate(rows, 0)
    imwrite(path, sheet)
    return sheet
