"""Surface points of procedural objects as a data source, made once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from typing import Any

import numpy as np
import torch
from pydantic import Field

from core.cache import cache_folder
from core.config.base import Config as BaseConfig
from core.contracts import Context, DataSource, Step
from core.errors import UserError, did_you_mean
from core.types import Cameras
from plugins.procedural.categories import CATEGORIES
from plugins.procedural.data import VERSION
from plugins.procedural.dataset import FOV_Y_DEG, orbit
from plugins.procedural.objects import make_object
from plugins.procedural.splits import seeds_of
from plugins.procedural.tracer import render

log = logging.getLogger("maquette")
_AZIMUTH, _ELEVATION, _DISTANCE, _SIDE = 35.0, 20.0, 3.0, 64


class ProceduralPoints(DataSource):
    """Points on the surfaces of procedural objects, a random subset of each at every call.

    A batch holds ``points`` and ``normals`` [B, N, 3] (world units; outwards), ``colors`` [B, N, 3] sRGB, ``label`` [B]
    int64 (an index into ``class_names``), ``caption`` (a list) and, with ``pictures``, ``rgb`` [B, 64, 64, 3].
    """

    class Config(BaseConfig):
        objects: int = Field(512, ge=1)
        """Objects in the pool; made at the first use, some ten a second on one core."""
        points: int = Field(512, ge=8)
        """Points of each object in a batch."""
        kept: int = Field(2048, ge=8)
        """Points of each object in the pool, of which a batch draws."""
        batch: int = Field(16, ge=1)
        """Objects in a batch."""
        categories: tuple[str, ...] = ("airplane", "chair", "mug", "rocket")
        """Kinds of object, in equal shares."""
        split: str = "train"
        """train, val or test."""
        pictures: bool = False
        """Whether each object comes with a picture of it."""

    def __init__(self, options: Config, context: Context) -> None:
        super().__init__(options, context)
        for name in options.categories:
            if name not in CATEGORIES:
                raise UserError(f"data.categories: no procedural object is a '{name}'.{did_you_mean(name, CATEGORIES)}")
        if options.points > options.kept:
            raise UserError(
                f"data.points is {options.points}, but only {options.kept} of each object are kept (data.kept)"
            )
        self.class_names = tuple(options.categories)
        self._pool: dict[str, Any] | None = None

    @property
    def pool(self) -> dict[str, Any]:
        """Arrays of the whole pool; first dimension ``objects``."""
        if self._pool is None:
            self._pool = self._load()
        return self._pool

    def batch(self, step: Step) -> dict[str, Any]:
        random = step.generator("data")
        return self.take(torch.randint(self.options.objects, (self.options.batch,), generator=random), random)

    def take(self, index: torch.Tensor, random: torch.Generator) -> dict[str, Any]:
        """The objects at ``index`` [B], a fresh choice of their points."""
        pool, o = self.pool, self.options
        chosen = torch.stack([torch.randperm(o.kept, generator=random)[: o.points] for _ in index])
        out: dict[str, Any] = {}
        for name in ("points", "normals", "colors"):
            values = torch.from_numpy(np.asarray(pool[name][index.numpy()])).float()
            out[name] = values.gather(1, chosen[..., None].expand(-1, -1, 3))
        out["label"] = torch.from_numpy(pool["label"])[index]
        out["caption"] = [str(pool["caption"][k]) for k in index.tolist()]
        if o.pictures:
            out["rgb"] = torch.from_numpy(pool["rgb"][index.numpy()]).float() / 255
        return out

    def seen_from(self, index: torch.Tensor, cameras: Cameras) -> dict[str, torch.Tensor]:
        """The objects at ``index`` [B] from all V cameras: ``rgb`` [B, V, H, W, 3] over grey, ``mask`` [B, V, H, W]."""
        names, start = self.class_names, seeds_of(self.options.split).start
        objects = [make_object(start + k, names[k % len(names)]) for k in index.tolist()]
        views, c2w = len(cameras), cameras.c2w.double().cpu().numpy()
        owner = np.arange(len(objects) * views) // views
        angle, turned = float(cameras.fov_y[0]), np.tile(c2w, (len(objects), 1, 1))
        made = render(objects, turned, angle, cameras.height, cameras.width, 2, owner=owner)
        return {k: torch.from_numpy(made[k]).unflatten(0, (len(objects), views)) for k in ("rgb", "mask")}

    def _load(self) -> dict[str, Any]:
        o = self.options
        key = json.dumps([VERSION, o.objects, o.kept, o.categories, o.split, o.pictures])
        path = cache_folder() / f"points-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
            np.savez(partial, **self._make())
            partial.replace(path)
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored.items())

    def _make(self) -> dict[str, Any]:
        o, made = self.options, []
        names, seeds = list(o.categories), seeds_of(o.split)
        log.info("sampling the surfaces of %d procedural objects", o.objects)
        for k in range(o.objects):
            label = k % len(names)
            seed = seeds.start + k
            one = make_object(seed, names[label])
            points, normals, colors = one.surface(o.kept)
            row = {"points": points.astype(np.float32), "normals": normals.astype(np.float32),
                   "colors": colors.astype(np.float32), "label": np.int64(label),
                   "caption": np.array(one.captions()[0])}  # fmt: skip
            made.append(row | ({"rgb": self._picture(one)} if o.pictures else {}))
        return {name: np.stack([row[name] for row in made]) for name in made[0]}

    def _picture(self, one: Any) -> Any:
        angle = np.radians([_AZIMUTH, _ELEVATION])
        c2w = orbit(angle[:1], angle[1:], np.array([_DISTANCE]))
        seen = render([one], c2w, math.radians(FOV_Y_DEG), _SIDE, _SIDE, 2, owner=np.zeros(1, np.int64))
        return (seen["rgb"][0] * 255 + 0.5).astype(np.uint8)
