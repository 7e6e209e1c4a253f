"""Captioned pictures of procedural objects from random cameras, deterministic in a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from plugins.procedural.captions import view_word
from plugins.procedural.categories import CATEGORIES, COLORS
from plugins.procedural.objects import ProceduralObject, make_object
from plugins.procedural.parts import MATERIALS
from plugins.procedural.splits import HELD_OUT_PAIRS, SPLITS, seeds_of
from plugins.procedural.tracer import render

FOV_Y_DEG = 40.0
DISTANCES = (2.8, 3.2)
ELEVATIONS_DEG = (-10.0, 60.0)
OVERHEAD_DEG = (60.0, 85.0)
OVERHEAD_SHARE = 0.10
CATEGORY_NAMES = tuple(CATEGORIES)
# The last one stands for a caption that names no colour.
COLOR_NAMES = (*COLORS, "natural")


def orbit(azimuth: NDArray[Any], elevation: NDArray[Any], distance: NDArray[Any]) -> NDArray[np.float64]:
    """OpenGL camera-to-world matrices [B,4,4] that look at the origin from angles in radians [B], distances [B]."""
    ce, se, ca, sa = np.cos(elevation), np.sin(elevation), np.cos(azimuth), np.sin(azimuth)
    back = np.stack([ce * ca, ce * sa, se], -1)
    right = np.stack([-sa, ca, np.zeros_like(sa)], -1)
    c2w = np.tile(np.eye(4), (len(back), 1, 1))
    c2w[:, :3, 0], c2w[:, :3, 1], c2w[:, :3, 2] = right, np.cross(back, right), back
    c2w[:, :3, 3] = back * np.asarray(distance)[:, None]
    return c2w


def sample_cameras(rng: np.random.Generator, count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Random (azimuth in [0, 2 pi), elevation, distance), radians, [count] each."""
    azimuth = rng.uniform(0.0, 2.0 * math.pi, count)
    overhead = rng.random(count) < OVERHEAD_SHARE
    elevation = np.where(overhead, rng.uniform(*OVERHEAD_DEG, count), rng.uniform(*ELEVATIONS_DEG, count))
    return azimuth, np.radians(elevation), rng.uniform(*DISTANCES, count)


def _set_on_circles(azimuth: NDArray[Any], elevation: NDArray[Any], distance: NDArray[Any], views: int) -> None:
    """In place: the first views - 1 of each set share the first one's circle, the last one stays where it was."""
    place = np.arange(len(azimuth)) % views
    first, circle = np.arange(len(azimuth)) - place, place < views - 1
    azimuth[circle] = (azimuth[first] + place * (2 * math.pi / (views - 1)))[circle] % (2 * math.pi)
    elevation[circle], distance[circle] = elevation[first][circle], distance[first][circle]


def _framings(
    rng: np.random.Generator, count: int, scale: tuple[float, float], shift: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors [count], log-uniform, and offsets [count, 3], uniform in a ball, of objects that are not framed alike."""
    factor = np.exp(rng.uniform(math.log(scale[0]), math.log(scale[1]), count))
    offset = rng.normal(size=(count, 3))
    offset *= shift * np.cbrt(rng.random((count, 1))) / np.linalg.norm(offset, axis=1, keepdims=True)
    return factor, offset


def _reframe(c2w: NDArray[Any], owner: NDArray[Any], factor: NDArray[Any], offset: NDArray[Any]) -> None:
    """In place: move each camera as it stands to its object once that is scaled and then moved (the camera's scale
    makes no difference to what it sees)."""
    c2w[:, :3, 3] = (c2w[:, :3, 3] - offset[owner]) / factor[owner, None]


def sample_objects(
    rng: np.random.Generator, count: int, split: str, categories: Sequence[str] = ()
) -> list[ProceduralObject]:
    """Random objects of a split; "heldout" wears the held-out pairs only. Raises UserError for an unknown split.

    categories: the kinds that may appear; none given are all. Raises UserError where no held-out pair is of them.
    """
    seeds = seeds_of(split)
    drawn = [int(seed) for seed in rng.integers(seeds.start, seeds.stop, count)]
    if split != "heldout":
        if not categories:
            return [make_object(seed) for seed in drawn]
        kinds = rng.integers(len(categories), size=count)
        return [make_object(seed, categories[int(k)]) for seed, k in zip(drawn, kinds, strict=True)]
    worn = [pair for pair in HELD_OUT_PAIRS if not categories or pair[0] in categories]
    if not worn:
        raise UserError(f"The split 'heldout' has no {' or '.join(categories)}.")
    pairs = rng.integers(len(worn), size=count)
    return [make_object(seed, *worn[int(p)]) for seed, p in zip(drawn, pairs, strict=True)]


def sample_batch(
    rng_seed: int,
    batch: int,
    size: int = 64,
    split: str = "train",
    samples: int = 2,
    views_per_object: int = 2,
    geometry: bool = False,
    orbit_sets: bool = False,
    categories: Sequence[str] = (),
    scale: tuple[float, float] = (1.0, 1.0),
    shift: float = 0.0,
) -> dict[str, Any]:
    """A batch of B = `batch` pictures, the same for the same arguments.

    Returns rgb uint8 [B,size,size,3]; azimuth, elevation (radians), distance float32 [B]; c2w float32 [B,4,4]; fov_y
    (radians, one float); caption and view_word, lists of B strings, the caption without the view; category, color,
    material int64 [B], indices into CATEGORY_NAMES, COLOR_NAMES and MATERIALS; seed int64 [B], the object's. With
    geometry also depth, mask [B,size,size] and normal [B,size,size,3] float32 (see `tracer.render`). Consecutive images
    share an object, `views_per_object` at a time; with orbit_sets all but the last of them lie at equal azimuths on one
    circle (one elevation, one distance). split: one of SPLITS; an unknown one raises UserError. categories: the
    kinds that appear; none given are all. scale, shift: each object is made larger by a factor between the two and
    moved off the middle by up to so many world units; `c2w` alone tells of it.
    """
    seeds_of(split)
    rng = np.random.Generator(np.random.PCG64([rng_seed, SPLITS.index(split)]))
    objects = sample_objects(rng, -(-batch // views_per_object), split, categories)
    owner = np.arange(batch) // views_per_object
    azimuth, elevation, distance = sample_cameras(rng, batch)
    if orbit_sets:
        _set_on_circles(azimuth, elevation, distance, views_per_object)
    c2w, fov_y = orbit(azimuth, elevation, distance), math.radians(FOV_Y_DEG)
    if (scale, shift) != ((1.0, 1.0), 0.0):
        _reframe(c2w, owner, *_framings(rng, len(objects), scale, shift))
    out: dict[str, Any] = dict(render(objects, c2w, fov_y, size, size, samples, owner=owner))
    rgb = (out.pop("rgb") * 255.0 + 0.5).astype(np.uint8)
    if not geometry:
        out = {}
    shown = [objects[k] for k in owner]
    phrasings = [one.captions() for one in objects]
    rolls = rng.random(batch)
    return out | {
        "rgb": rgb,
        "azimuth": azimuth.astype(np.float32),
        "elevation": elevation.astype(np.float32),
        "distance": distance.astype(np.float32),
        "c2w": c2w.astype(np.float32),
        "fov_y": fov_y,
        "caption": [
            phrasings[k][int(roll * len(phrasings[k]))] for k, roll in zip(owner, rolls, strict=True)
        ],
        "view_word": [
            view_word(math.degrees(a), math.degrees(e)) for a, e in zip(azimuth, elevation, strict=True)
        ],
        "category": np.array([CATEGORY_NAMES.index(one.category) for one in shown]),
        "color": np.array([COLOR_NAMES.index(one.color or "natural") for one in shown]),
        "material": np.array([MATERIALS.index(one.material) for one in shown]),
        "seed": np.array([one.seed for one in shown]),
    }
