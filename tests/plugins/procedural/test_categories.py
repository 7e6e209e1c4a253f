"""Every category builds, differs between seeds, and wears the colour its caption names."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest

from plugins.procedural.categories import CATEGORIES, COLORS
from plugins.procedural.categories.base import Palette, distance, mix
from plugins.procedural.objects import make_object
from plugins.procedural.parts import Part
from plugins.procedural.tracer import render

NAMES = tuple(CATEGORIES)
TEST_SEED = 2_000_000
# The four sides at 20 degrees of elevation, and one from above.
VIEWS = ((0.0, 20.0), (90.0, 20.0), (180.0, 20.0), (270.0, 20.0), (40.0, 50.0))


def _palette(name: str | None, natural: str) -> Palette:
    main = COLORS[natural if name is None else name]
    white, black = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    return Palette(main, mix(main, white, 0.4), mix(main, black, 0.4), natural=name is None)


def _build(category: str, seed: int, color: str | None) -> list[Part]:
    recipe = CATEGORIES[category]
    return recipe.build(np.random.Generator(np.random.PCG64(seed)), _palette(color, recipe.natural))


def _camera(azimuth: float, elevation: float, radius: float) -> np.ndarray:
    """OpenGL camera to world [4,4] looking at the origin."""
    a, e = math.radians(azimuth), math.radians(elevation)
    z = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    x = np.array([-math.sin(a), math.cos(a), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = radius * z
    return pose


def _pixels(category: str, color: str, seed: int) -> np.ndarray:
    """Masked pixels [N,3] of five views, 32 pixels wide."""
    item = make_object(seed, category, color, "matte")
    cameras = np.stack([_camera(*view, 4.0) for view in VIEWS])
    out = render([item.packed], cameras, 2 * math.asin(0.95 / 4.0), 32, 32, samples=1)
    return out["rgb"][out["mask"] > 0.99]


def _votes(pixels: np.ndarray) -> np.ndarray:
    """How many pixels [N,3] lie nearest to each of COLORS, under dim, middling and full light."""
    named = np.array(list(COLORS.values()))
    shaded = named[:, None] * np.array([0.7, 0.88, 1.1])[None, :, None]
    gaps = np.linalg.norm(pixels[:, None, None] - np.minimum(shaded, 1.0)[None], axis=-1).min(axis=2)
    return np.bincount(gaps.argmin(axis=1), minlength=len(COLORS))


def test_there_are_enough_categories_with_their_own_nouns() -> None:
    nouns = [noun for category in CATEGORIES.values() for noun in category.nouns]
    assert len(CATEGORIES) >= 28
    assert len(nouns) == len(set(nouns))
    assert all(category.natural in COLORS and key == category.name for key, category in CATEGORIES.items())


def test_colours_stand_apart_and_off_the_background() -> None:
    values = list(COLORS.values())
    assert min(distance(a, b) for k, a in enumerate(values) for b in values[:k]) > 0.3
    assert min(distance(a, (0.5, 0.5, 0.5)) for a in values) > 0.3


@pytest.mark.parametrize("category", NAMES)
def test_every_seed_builds_sound_parts(category: str) -> None:
    for seed in range(20):
        for color in ("red", "blue", "white", None):
            parts = _build(category, seed, color)
            assert 5 <= len(parts) <= 40
            numbers = np.array([[*p.size, *p.at, *p.rotation, *p.color] for p in parts])
            assert np.isfinite(numbers).all()
            sizes = numbers[[p.shape != "torus" for p in parts], :4]
            assert np.abs(numbers[:, 4:7]).max() < 3.0 and sizes.min() >= 0.0 and sizes.max() < 3.0
            assert numbers[:, 16:].min() >= 0.0 and numbers[:, 16:].max() <= 1.0


@pytest.mark.parametrize("category", NAMES)
def test_a_seed_repeats_and_another_differs(category: str) -> None:
    built = [[astuple(p) for p in _build(category, seed, "blue")] for seed in (*range(8), 0)]
    assert built[0] == built[8]
    assert all(built[a] != built[b] for a in range(8) for b in range(a))


@pytest.mark.parametrize("category", NAMES)
def test_colour_changes_no_shape(category: str) -> None:
    for seed in range(5):
        red, natural = _build(category, seed, "red"), _build(category, seed, None)
        assert [(p.shape, p.size, p.at) for p in red] == [(p.shape, p.size, p.at) for p in natural]


@pytest.mark.parametrize("category", NAMES)
def test_the_named_colour_dominates_the_picture(category: str) -> None:
    for k, color in enumerate(COLORS):
        votes = _votes(_pixels(category, color, TEST_SEED + k))
        assert tuple(COLORS)[int(votes.argmax())] == color, dict(zip(COLORS, votes.tolist(), strict=True))


@pytest.mark.parametrize("category", NAMES)
def test_the_front_is_not_the_back(category: str) -> None:
    """At least 4% of the covered pixels tell the front from the back."""
    item = make_object(TEST_SEED + 7, category, "yellow", "matte")
    cameras = np.stack([_camera(azimuth, 20.0, 4.0) for azimuth in (0.0, 180.0)])
    out = render([item.packed], cameras, 2 * math.asin(0.95 / 4.0), 64, 64, samples=1)
    difference = np.abs(out["rgb"][0] - out["rgb"][1]).max(axis=-1)
    covered = (out["mask"] > 0.5).any(axis=0)
    assert (difference > 0.15).sum() > 0.04 * covered.sum()


def test_a_material_coats_every_part() -> None:
    metal = make_object(TEST_SEED, "corgi", "blue", "metal")
    assert {part.material for part in metal.parts} == {"metal"}
