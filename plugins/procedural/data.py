"""The procedural objects as a data source: a pool of captioned pictures, made once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from core.cache import cache_folder
from core.config.base import Config as BaseConfig
from core.contracts import Context, DataSource, Step
from core.errors import UserError, did_you_mean
from core.types import Cameras
from plugins.procedural.categories import CATEGORIES
from plugins.procedural.dataset import CATEGORY_NAMES, COLOR_NAMES, FOV_Y_DEG, sample_batch
from plugins.procedural.objects import make_object
from plugins.procedural.parts import MATERIALS
from plugins.procedural.splits import seeds_of
from plugins.procedural.tracer import render

log = logging.getLogger("maquette")

CHUNK = 1024
VERSION = 2
"""Raised when the objects or the renderer change, so that an old pool is not taken for a new one."""
_TEXTS = ("caption", "view_word")


class PoolConfig(BaseConfig):
    """What every pool of procedural pictures is told."""

    images: int = Field(60_000, ge=1)
    """Pictures in the pool; made at the first use, about 300 a second on one core."""
    batch: int = Field(64, ge=1)
    """Pictures in a batch."""
    size: int = Field(64, ge=8)
    """Height and width in pixels."""
    split: str = "train"
    """train, val, test, or heldout (pairs of category and colour that training never shows)."""
    seed: int = Field(0, ge=0)
    """Another seed is another pool."""
    views: int = Field(2, ge=1)
    """Consecutive pictures that show the same object."""
    categories: tuple[str, ...] = ()
    """Kinds of objects that appear; empty takes all."""


class PicturePool(DataSource):
    """Posed pictures with captions, ``views`` of each thing, in files on disk that are made at their first use."""

    arrays: tuple[str, ...] = ("rgb", "azimuth", "elevation", "distance", "seed")
    """What is kept of each picture: ``rgb`` [S, S, 3] uint8, and numbers."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._pool: dict[str, Any] | None = None
        for name in options.categories:
            if name not in CATEGORIES:
                close = did_you_mean(name, CATEGORIES)
                raise UserError(f"data.categories: no procedural object is a '{name}'.{close}")

    @abstractmethod
    def made(self, seed: int, count: int) -> dict[str, Any]:
        """``count`` pictures that follow from ``seed``: the ``arrays``, and texts."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where this pool is kept on disk."""

    @property
    def pool(self) -> dict[str, Any]:
        """Every picture of the pool: arrays with first dimension ``images``, and lists of texts."""
        if self._pool is None:
            self._pool = self._load()
        return self._pool

    def batch(self, step: Step) -> dict[str, Any]:
        return self.take(self.draw(step).numpy())

    def draw(self, step: Step) -> torch.Tensor:
        """Which pictures a step's batch holds, [B]: enough for who keeps something else of each picture."""
        return torch.randint(self.options.images, (self.options.batch,), generator=step.generator("data"))

    def take(self, index: np.ndarray[Any, Any]) -> dict[str, Any]:
        """The pictures at ``index`` [B], as a batch."""
        pool = self.pool
        out: dict[str, Any] = {k: torch.from_numpy(np.asarray(pool[k][index])) for k in self.arrays if k != "rgb"}
        out["rgb"] = torch.from_numpy(np.asarray(pool["rgb"][index])).float() / 255.0
        return out | {k: [pool[k][i] for i in index] for k in _TEXTS} | {"index": index}

    def cameras(self, index: torch.Tensor) -> Cameras:
        """Those of the pictures at ``index`` [B]."""
        azimuth, elevation, distance = (
            torch.from_numpy(self.pool[k])[index] for k in ("azimuth", "elevation", "distance")
        )
        fov = torch.full_like(azimuth, FOV_Y_DEG).deg2rad()
        return Cameras.orbit(azimuth, elevation, distance, fov, self.options.size, self.options.size)

    def _load(self) -> dict[str, Any]:
        folder, count = self.folder, -(-self.options.images // self.chunk)
        folder.mkdir(parents=True, exist_ok=True)
        chunks = [self._chunk(folder, k, count) for k in range(count)]
        keep = self.options.images
        pool: dict[str, Any] = {k: np.concatenate([c[k] for c in chunks])[:keep] for k in self.arrays}
        return pool | {k: [t for c in chunks for t in c[k].tolist()][:keep] for k in _TEXTS}

    @property
    def chunk(self) -> int:
        """Pictures of a file of the pool: whole sets."""
        return CHUNK // self.options.views * self.options.views

    def _chunk(self, folder: Path, index: int, count: int) -> dict[str, Any]:
        """One chunk from disk, made first if it is not there (so an interrupted pool goes on where it stopped)."""
        path = folder / f"{index:05d}.npz"
        if not path.exists():
            if index % 8 == 0:
                log.info("rendering procedural pictures: %d of %d", index * self.chunk, count * self.chunk)
            made = self.made(self.options.seed * 1_000_003 + index, self.chunk)
            partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
            np.savez(partial, **{k: made[k] for k in self.arrays}, **{k: np.array(made[k]) for k in _TEXTS})  # type: ignore[arg-type]
            partial.replace(path)
        with np.load(path, allow_pickle=False) as stored:
            return {k: stored[k] for k in (*self.arrays, *_TEXTS)}


class ProceduralData(PicturePool):
    """Random pictures of procedural objects with their captions, cameras and labels.

    A batch holds ``rgb`` [B, S, S, 3] float in [0, 1], ``azimuth`` and ``elevation`` [B] radians, ``distance`` [B],
    ``category``, ``color``, ``material`` [B] int64 and the lists ``caption`` and ``view_word``.
    """

    class Config(PoolConfig):
        orbit: bool = False
        """All but the last of an object's pictures lie at equal azimuths on one circle; else they lie anywhere."""
        scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
        """Least and greatest factor by which an object is made larger in all its pictures, drawn for each object."""
        shift: float = Field(0.0, ge=0, lt=0.5)
        """Each object is moved off the middle by up to so many world units (its radius is 0.9); cameras stay."""

    arrays = ("rgb", "azimuth", "elevation", "distance", "category", "color", "material", "seed")
    category_names = CATEGORY_NAMES
    color_names = COLOR_NAMES
    nouns = {name: list(category.nouns) for name, category in CATEGORIES.items()}

    def made(self, seed: int, count: int) -> dict[str, Any]:
        o = self.options
        return sample_batch(
            seed, count, o.size, o.split, views_per_object=o.views, orbit_sets=o.orbit, categories=o.categories,
            scale=o.scale, shift=o.shift,
        )  # fmt: skip

    @staticmethod
    def pictures_of(category: str, color: str | None, cameras: Cameras, count: int) -> torch.Tensor:
        """[count, V, H, W, 3] in [0, 1]: ``count`` unseen objects of a kind, each from the V cameras.

        Args:
            color: one of ``color_names``, or None for whatever each object's seed draws.
        """
        first = seeds_of("test").start
        objects = [make_object(first + k, category, color) for k in range(count)]
        views = len(cameras)
        c2w = cameras.c2w.double().cpu().numpy()
        owner = np.arange(count * views) // views
        made = render(
            objects, np.tile(c2w, (count, 1, 1)), float(cameras.fov_y[0]), cameras.height, cameras.width, 2, owner=owner
        )
        return torch.from_numpy(made["rgb"]).float().view(count, views, cameras.height, cameras.width, 3)

    def seen_from(self, index: np.ndarray[Any, Any], cameras: Cameras) -> dict[str, torch.Tensor]:
        """The objects in the pictures at ``index`` [B], seen from elsewhere: each from all V cameras.

        Returns ``rgb`` [B, V, H, W, 3] in [0, 1], ``mask`` and ``depth`` [B, V, H, W] (along the axis, 0 where missed).
        """
        pool, count, views = self.pool, len(index), len(cameras)
        objects = [
            make_object(
                int(pool["seed"][k]), CATEGORY_NAMES[pool["category"][k]], COLOR_NAMES[pool["color"][k]],
                MATERIALS[pool["material"][k]],
            )
            for k in index
        ]  # fmt: skip
        c2w = np.tile(cameras.c2w.double().cpu().numpy(), (count, 1, 1))
        owner = np.arange(count * views) // views
        made = render(objects, c2w, float(cameras.fov_y[0]), cameras.height, cameras.width, 2, owner=owner)
        return {k: torch.from_numpy(made[k]).unflatten(0, (count, views)) for k in ("rgb", "mask", "depth")}

    @property
    def folder(self) -> Path:
        o = self.options
        what: list[Any] = [VERSION, o.size, o.split, o.seed, CATEGORY_NAMES, COLOR_NAMES]
        what += [o.views, o.orbit] if (o.views, o.orbit) != (2, False) else []
        what += [o.categories] if o.categories else []
        what += [o.scale, o.shift] if (o.scale, o.shift) != ((1.0, 1.0), 0.0) else []
        key = json.dumps(what)
        return cache_folder() / f"procedural-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
