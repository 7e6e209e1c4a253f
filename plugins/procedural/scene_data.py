"""Data ``procedural-scenes``: captioned, posed pictures of several objects on a ground."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from core.cache import cache_folder
from core.contracts import Context
from core.errors import UserError
from core.types import Cameras
from plugins.procedural.captions import view_word
from plugins.procedural.data import VERSION, PicturePool, PoolConfig
from plugins.procedural.dataset import (
    CATEGORY_NAMES,
    COLOR_NAMES,
    DISTANCES,
    FOV_Y_DEG,
    OVERHEAD_DEG,
    OVERHEAD_SHARE,
    orbit,
)
from plugins.procedural.scenes import MOST, ProceduralScene, make_scene
from plugins.procedural.splits import SPLITS, seeds_of
from plugins.procedural.tracer import render

ELEVATIONS_DEG = (8.0, 60.0)
"""Of the cameras, but for those from overhead: none looks at the ground from below."""
NEARER = (1.9, 2.5)
"""Distances of the nearer cameras, which see a part of the scene."""


class ProceduralScenes(PicturePool):
    """Random pictures of scenes with their captions and cameras.

    A batch holds ``rgb`` [B, S, S, 3] float in [0, 1], ``azimuth`` and ``elevation`` [B] radians, ``distance`` [B],
    ``objects`` [B] int64 (how many there are), ``ground`` [B] int64 (an index into ``color_names``) and the lists
    ``caption`` and ``view_word``.
    """

    class Config(PoolConfig):
        least: int = Field(2, ge=1, le=MOST)
        """Objects of a scene, at least."""
        most: int = Field(MOST, ge=1, le=MOST)
        """Objects of a scene, at most."""
        near: float = Field(0.3, ge=0, le=1)
        """Share of the pictures that are taken from nearer, and show a part of the scene."""

    arrays = ("rgb", "azimuth", "elevation", "distance", "objects", "ground", "seed")
    color_names = COLOR_NAMES

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        if options.least > options.most:
            raise UserError(f"data.least={options.least} is more than data.most={options.most}")

    def made(self, seed: int, count: int) -> dict[str, Any]:
        o = self.options
        seeds = seeds_of(o.split)
        rng = np.random.Generator(np.random.PCG64([seed, SPLITS.index(o.split), 1]))
        scenes = [self.scene(int(k)) for k in rng.integers(seeds.start, seeds.stop, -(-count // o.views))]
        azimuth, elevation, distance = sample_cameras(rng, count, o.near)
        owner = np.arange(count) // o.views
        seen = render(
            scenes, orbit(azimuth, elevation, distance), math.radians(FOV_Y_DEG), o.size, o.size, 2, owner=owner
        )
        rolls, phrasings, shown = rng.random(count), [one.captions() for one in scenes], [scenes[k] for k in owner]
        return {
            "rgb": (seen["rgb"] * 255.0 + 0.5).astype(np.uint8),
            "azimuth": azimuth.astype(np.float32),
            "elevation": elevation.astype(np.float32),
            "distance": distance.astype(np.float32),
            "objects": np.array([len(one.placed) for one in shown]),
            "ground": np.array([COLOR_NAMES.index(one.ground) for one in shown]),
            "seed": np.array([one.seed for one in shown]),
            "caption": [phrasings[k][int(roll * len(phrasings[k]))] for k, roll in zip(owner, rolls, strict=True)],
            "view_word": [view_word(math.degrees(a), math.degrees(e)) for a, e in zip(azimuth, elevation, strict=True)],
        }

    def scene(self, seed: int) -> ProceduralScene:
        """The scene of a seed under these options."""
        o = self.options
        return make_scene(seed, None, o.categories, o.split == "heldout", o.least, o.most)

    def seen_from(self, index: NDArray[Any], cameras: Cameras) -> dict[str, torch.Tensor]:
        """The scenes in the pictures at ``index`` [B], seen from elsewhere: each from all V cameras.

        Returns ``rgb`` [B, V, H, W, 3] in [0, 1], ``mask`` and ``depth`` [B, V, H, W] (along the axis, 0 where missed).
        """
        scenes, views = [self.scene(int(self.pool["seed"][k])) for k in index], len(cameras)
        c2w = np.tile(cameras.c2w.double().cpu().numpy(), (len(scenes), 1, 1))
        owner = np.arange(len(scenes) * views) // views
        made = render(scenes, c2w, float(cameras.fov_y[0]), cameras.height, cameras.width, 2, owner=owner)
        return {k: torch.from_numpy(made[k]).unflatten(0, (len(scenes), views)) for k in ("rgb", "mask", "depth")}

    @property
    def folder(self) -> Path:
        o = self.options
        what = [VERSION, o.size, o.split, o.seed, CATEGORY_NAMES, o.views, o.categories, o.least, o.most, o.near]
        return cache_folder() / f"procedural-scenes-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]}"


def sample_cameras(
    rng: np.random.Generator, count: int, near: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Random (azimuth, elevation, distance), radians and world units, [count] each, of cameras above the ground."""
    azimuth = rng.uniform(0.0, 2.0 * math.pi, count)
    overhead = rng.random(count) < OVERHEAD_SHARE
    elevation = np.where(overhead, rng.uniform(*OVERHEAD_DEG, count), rng.uniform(*ELEVATIONS_DEG, count))
    close = rng.random(count) < near
    return azimuth, np.radians(elevation), np.where(close, rng.uniform(*NEARER, count), rng.uniform(*DISTANCES, count))
