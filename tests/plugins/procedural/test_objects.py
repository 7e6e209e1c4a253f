"""Objects, captions, splits and batches: deterministic, in range, and honest about what training may see."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from core.errors import UserError
from plugins.procedural.captions import COLORED, article, caption, captions, view_word, with_view
from plugins.procedural.categories import CATEGORIES, COLORS
from plugins.procedural.contact_sheet import contact_sheet
from plugins.procedural.dataset import CATEGORY_NAMES, COLOR_NAMES, sample_batch, sample_objects
from plugins.procedural.objects import RADIUS, make_object
from plugins.procedural.splits import HELD_OUT_PAIRS, SEED_RANGES, is_held_out, seeds_of, split_of


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_is_centred_and_fills_the_sphere(category: str) -> None:
    for seed in range(2_000_000, 2_000_003):
        item = make_object(seed, category)
        directions = np.random.default_rng(0).normal(size=(4000, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        assert item.sdf(directions * (RADIUS + 1e-4)).min() > 0
        vertices, faces, colors = item.mesh(64)
        assert np.linalg.norm(vertices, axis=1).max() > RADIUS - 0.06
        assert np.abs(vertices.min(0) + vertices.max(0)).max() < 0.08
        volume = (
            np.einsum("ij,ij", vertices[faces[:, 0]], np.cross(vertices[faces[:, 1]], vertices[faces[:, 2]]))
            / 6
        )
        assert volume > 0  # faces look outwards
        assert colors.min() >= 0
        assert colors.max() <= 1


def test_objects_are_deterministic() -> None:
    first, again = make_object(123), make_object(123)
    assert first == again
    assert first.captions() == again.captions()
    assert make_object(124).parts != first.parts


def test_one_seed_keeps_its_shape_in_another_colour() -> None:
    red, blue = (make_object(2_000_007, "airplane", color, "matte") for color in ("red", "blue"))
    assert len(red.parts) == len(blue.parts)
    np.testing.assert_allclose(red.packed["at"], blue.packed["at"])
    assert red.palette_color != blue.palette_color


def test_surface_samples_lie_on_the_surface() -> None:
    item = make_object(2_000_001, "teapot")
    points, normals, colors = item.surface(500, seed=3)
    distance = np.abs(item.sdf(points))
    assert np.quantile(distance, 0.99) < 1e-3
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-6)
    assert np.mean(item.sdf(points + 0.01 * normals) > 0.005) > 0.95
    assert colors.shape == (500, 3)
    np.testing.assert_array_equal(points, item.surface(500, seed=3)[0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("orange mug", "an"),
        ("airplane", "an"),
        ("umbrella", "an"),
        ("red mug", "a"),
        ("unicorn", "a"),
        ("old car", "an"),
    ],
)
def test_articles(words: str, expected: str) -> None:
    assert article(words) == expected


def test_captions_are_phrased_as_documented() -> None:
    said = captions(("mug",), "red")
    assert {"a red mug", "a mug, red", "a 3d model of a red mug", "a photo of a red mug", "red mug"} <= set(
        said
    )
    assert "a small toy of a red mug" in said
    assert "an orange mug" in captions(("mug",), "orange")
    assert "an airplane, orange" in captions(("airplane",), "orange")
    assert "a shiny orange mug" in captions(("mug",), "orange", "glossy")
    assert "a metal blue robot" in captions(("robot",), "blue", "metal")
    assert caption(COLORED[0], "airplane", None) == "an airplane"
    assert not any(
        word in text for text in captions(("mug",), None) for word in ("None", "{", "}", "  ", ",")
    )


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [
        (0, 0, "front"), (45, 0, "front"), (-45, 10, "front"), (315, 0, "front"), (46, 0, "side"), (90, 60, "side"),
        (270, 0, "side"), (135, 0, "back"), (180, 0, "back"), (-180, 0, "back"), (225, 0, "back"), (226, 0, "side"),
        (0, 60, "front"), (0, 60.1, "overhead"), (180, 85, "overhead"), (720, 0, "front"),
    ],
)  # fmt: skip
def test_view_words(azimuth: float, elevation: float, expected: str) -> None:
    assert view_word(azimuth, elevation) == f"{expected} view"
    assert with_view("a red mug", azimuth, elevation) == f"a red mug, {expected} view"


def test_splits_are_disjoint() -> None:
    ranges = list(SEED_RANGES.values())
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    assert [split_of(r.start) for r in ranges] == ["train", "val", "test"]
    assert seeds_of("heldout") == SEED_RANGES["test"]
    with pytest.raises(UserError, match="no split"):
        split_of(-1)
    with pytest.raises(UserError, match="Did you mean 'train'"):
        seeds_of("trian")


def test_held_out_pairs_are_well_chosen() -> None:
    assert len(set(HELD_OUT_PAIRS)) == len(HELD_OUT_PAIRS) >= 12
    for category, color in HELD_OUT_PAIRS:
        assert color in COLORS
        assert CATEGORIES[category].natural != color
    # Each colour and each category still appears in training, in other company.
    for color in COLORS:
        assert sum(pair[1] == color for pair in HELD_OUT_PAIRS) < len(CATEGORIES) // 4
    for category in CATEGORIES:
        assert sum(pair[0] == category for pair in HELD_OUT_PAIRS) < len(COLORS) // 4


def test_training_never_shows_a_held_out_pair() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for split in ("train", "val"):
        for item in sample_objects(rng, 1500, split):
            assert not is_held_out(item.category, item.color)
            seen.add((item.category, item.color))
    assert {category for category, _ in seen} == set(CATEGORIES)
    assert {color for _, color in seen} == {*COLORS, None}
    test_pairs = {(item.category, item.color) for item in sample_objects(rng, 60, "heldout")}
    assert test_pairs <= set(HELD_OUT_PAIRS)
    with pytest.raises(UserError, match="held out"):
        make_object(5, *HELD_OUT_PAIRS[0])


def test_shares_of_natural_and_shiny_objects() -> None:
    items = sample_objects(np.random.default_rng(1), 1500, "test")
    assert 0.30 < np.mean([item.color is None for item in items]) < 0.40
    for material in ("glossy", "metal"):
        assert 0.12 < np.mean([item.material == material for item in items]) < 0.18


def test_unknown_words_are_refused_with_a_hint() -> None:
    with pytest.raises(UserError, match="Did you mean 'teapot'"):
        make_object(2_000_000, "teapto")
    with pytest.raises(UserError, match="colour"):
        make_object(2_000_000, "teapot", "rde")


def test_batches_are_deterministic_and_well_formed() -> None:
    batch, again = sample_batch(7, 9, size=24, geometry=True), sample_batch(7, 9, size=24, geometry=True)
    digests = [hashlib.sha256(one["rgb"].tobytes()).hexdigest() for one in (batch, again)]
    assert digests[0] == digests[1]
    assert batch["caption"] == again["caption"]
    assert batch["rgb"].shape == (9, 24, 24, 3)
    assert batch["rgb"].dtype == np.uint8
    assert batch["depth"].shape == (9, 24, 24)
    assert not np.array_equal(batch["rgb"], sample_batch(8, 9, size=24)["rgb"])
    assert not np.array_equal(batch["rgb"], sample_batch(7, 9, size=24, split="test")["rgb"])
    assert len(batch["caption"]) == len(batch["view_word"]) == 9
    for k in range(9):
        item = make_object(int(batch["seed"][k]))
        assert CATEGORY_NAMES[batch["category"][k]] == item.category
        assert COLOR_NAMES[batch["color"][k]] == (item.color or "natural")
        assert batch["caption"][k] in item.captions()
        assert "view" not in batch["caption"][k]
    assert (batch["seed"][0:8:2] == batch["seed"][1:8:2]).all()


def test_cameras_look_at_the_object_within_the_stated_ranges() -> None:
    batch = sample_batch(3, 400, size=8, samples=1)
    elevation = np.degrees(batch["elevation"])
    assert elevation.min() >= -10.001
    assert elevation.max() <= 85.001
    assert 0.05 < np.mean(elevation > 60) < 0.16
    assert batch["distance"].min() >= 2.8
    assert batch["distance"].max() <= 3.2
    quadrants = np.bincount((batch["azimuth"] / (np.pi / 2)).astype(int), minlength=4)
    assert quadrants.min() > 70
    eye = batch["c2w"][:, :3, 3]
    np.testing.assert_allclose(batch["c2w"][:, :3, 2], eye / batch["distance"][:, None], atol=1e-5)
    np.testing.assert_allclose(np.arctan2(eye[:, 1], eye[:, 0]) % (2 * np.pi), batch["azimuth"], atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(batch["c2w"]), 1.0, atol=1e-5)


def test_contact_sheet_has_a_row_per_category(tmp_path) -> None:  # type: ignore[no-untyped-def]
    sheet = contact_sheet(tmp_path / "sheet.png", 2_000_000, 2_000_001, size=16, categories=("mug", "tree"))
    assert sheet.shape == (32, 2 * 6 * 16 + 4, 3)
    assert (tmp_path / "sheet.png").stat().st_size > 0
