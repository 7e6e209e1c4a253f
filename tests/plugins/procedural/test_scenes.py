"""Scenes: objects stand on the ground, apart, and look as they do alone; splits share neither scenes nor objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError
from core.types import Cameras
from plugins.procedural.dataset import FOV_Y_DEG
from plugins.procedural.extents import bounding_box
from plugins.procedural.objects import RADIUS
from plugins.procedural.parts import pack
from plugins.procedural.scene_data import ELEVATIONS_DEG, NEARER, ProceduralScenes
from plugins.procedural.scenes import DISC, GAP, GROUND, MOST, Placed, make_scene
from plugins.procedural.sdf import distance_and_part
from plugins.procedural.splits import HELD_OUT_PAIRS, SEED_RANGES, is_held_out, split_of
from plugins.procedural.tracer import render

SEEDS = range(2_000_000, 2_000_040)
SCENES = {seed: make_scene(seed) for seed in SEEDS}


def turn(yaw: float) -> NDArray[np.float64]:
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def in_scene(one: Placed, points: NDArray[Any]) -> NDArray[np.float64]:
    """Points of the object where they lie in the scene, by matrices."""
    return one.scale * points @ turn(one.yaw).T + np.array(one.at)


def distances(one: Placed, points: NDArray[Any]) -> NDArray[np.float64]:
    """Signed distances to a placed object, from the object's own."""
    local = (points - np.array(one.at)) @ turn(one.yaw) / one.scale
    return one.scale * one.object.sdf(local)


def test_the_data_are_found_by_their_name() -> None:
    entry = get_registry().find("data", "procedural-scenes")
    assert entry.load() is ProceduralScenes and entry.gives == get_registry().find("data", "procedural").gives


def test_objects_rest_on_the_ground_within_the_disc() -> None:
    for scene in SCENES.values():
        assert 2 <= len(scene.placed) <= MOST
        for one in scene.placed:
            low, high = bounding_box(pack(one.parts))
            assert low[2] == pytest.approx(GROUND, abs=1e-5)
            assert math.hypot(*one.at[:2]) + one.reach <= DISC + 1e-6
            assert (high - low)[2] <= 0.75 + 1e-5 and 0.1 < one.reach < 0.4


def test_parts_lie_where_the_object_s_own_distance_says() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (400, 3))
    for seed in (2_000_000, 2_000_001):
        for one in SCENES[seed].placed:
            found = distance_and_part(pack(one.parts), points)[0]
            np.testing.assert_allclose(found, distances(one, points), atol=2e-5)


def test_objects_do_not_overlap_and_lie_within_the_radius() -> None:
    for seed in list(SEEDS)[:6]:
        scene = SCENES[seed]
        for one in scene.placed:
            surface = in_scene(one, one.object.surface(300)[0])
            assert np.linalg.norm(surface, axis=1).max() <= RADIUS + 1e-3
            assert surface[:, 2].min() > GROUND - 1e-3
            for other in scene.placed:
                if other is not one:
                    assert distances(other, surface).min() > GAP - 1e-3
    for scene in SCENES.values():
        for k, one in enumerate(scene.placed):
            for other in scene.placed[:k]:
                assert math.dist(one.at[:2], other.at[:2]) >= one.reach + other.reach + GAP - 1e-9


def test_a_scene_s_distance_is_the_least_of_the_ground_s_and_the_objects() -> None:
    scene = SCENES[2_000_000]
    points = np.random.default_rng(1).uniform(-1, 1, (500, 3))
    across = np.linalg.norm(points[:, :2], axis=1)
    beside, above = across - DISC, np.abs(points[:, 2] - GROUND + 0.025) - 0.025
    disc = np.hypot(beside.clip(0), above.clip(0)) + np.minimum(np.maximum(beside, above), 0)
    least = np.min([disc, *(distances(one, points) for one in scene.placed)], axis=0)
    outside = least > 1e-3
    np.testing.assert_allclose(scene.sdf(points)[outside], least[outside], atol=2e-5)


def camera(distance: float = 2.9, azimuth: float = 0.4) -> NDArray[np.float64]:
    one = Cameras.turntable(torch.tensor([azimuth], dtype=torch.float64), 0.5, 48, distance)
    return one.c2w.numpy()


def seen(objects: Any, c2w: NDArray[np.float64]) -> dict[str, Any]:
    return {k: v[0] for k, v in render(objects, c2w, math.radians(FOV_Y_DEG), 48, 48, 3).items()}


@pytest.mark.parametrize("category", ["mug", "house", "chair"])
def test_one_object_on_the_ground_looks_as_it_does_alone(category: str) -> None:
    """From the same side, seen through a camera that is moved into the object's own frame."""
    scene = make_scene(2_000_003, 1, [category])
    [one] = scene.placed
    c2w = camera()
    own = c2w.copy()
    own[0, :3, :3] = turn(one.yaw).T @ c2w[0, :3, :3]
    own[0, :3, 3] = turn(one.yaw).T @ (c2w[0, :3, 3] - np.array(one.at)) / one.scale
    alone, together = seen([one.object], own), seen([scene], c2w)
    ours = alone["mask"] == 1
    assert ours.sum() > 60
    apart = np.abs(together["depth"][ours] - one.scale * alone["depth"][ours])
    assert np.quantile(apart, 0.9) < 2e-4 and apart.max() < 0.05  # a pixel of two parts takes the nearer one's depth
    turned = alone["normal"][ours] @ turn(one.yaw).T
    assert np.median(np.abs(together["normal"][ours] - turned)) < 1e-4
    assert (together["mask"] >= alone["mask"]).all()
    bare = seen({k: v[:1] for k, v in scene.packed.items()}, c2w)
    beside = (alone["mask"] == 0) & (bare["mask"] == 1)  # the ground, but for the shade at the object's foot
    assert np.median(np.abs(together["rgb"][beside] - bare["rgb"][beside])) < 1e-6


def test_an_unturned_object_has_its_own_colours() -> None:
    """Light is fixed in the world: without a turn the colours agree, but for the occlusion's fixed reach."""
    scene = make_scene(2_000_003, 1, ["mug"])
    [one] = scene.placed
    straight = Placed(one.object, one.scale, 0.0, one.at, one.reach)
    c2w = camera()
    own = c2w.copy()
    own[0, :3, 3] = (c2w[0, :3, 3] - np.array(one.at)) / one.scale
    alone, together = seen([one.object], own), seen(pack(straight.parts), c2w)
    ours = (alone["mask"] == 1) & (together["mask"] == 1)
    assert ours.sum() > 60 and np.median(np.abs(alone["rgb"][ours] - together["rgb"][ours])) < 0.01


def test_scenes_are_deterministic() -> None:
    again = make_scene(2_000_005)
    assert again == SCENES[2_000_005] and again.captions() == SCENES[2_000_005].captions()
    np.testing.assert_array_equal(again.packed["at"], SCENES[2_000_005].packed["at"])
    assert make_scene(2_000_006) != again


def test_splits_share_no_object_and_training_shows_no_held_out_pair() -> None:
    for split, seeds in SEED_RANGES.items():
        for k in range(60):
            for one in make_scene(seeds.start + k).placed:
                assert split_of(one.object.seed) == split
                if split != "test":
                    assert not is_held_out(one.object.category, one.object.color)
    for k in range(10):
        first = make_scene(2_000_000 + k, held_out=True).placed[0].object
        assert (first.category, first.color) in HELD_OUT_PAIRS
    with pytest.raises(UserError, match="no split"):
        make_scene(-1)
    with pytest.raises(UserError, match="has no snowman"):
        make_scene(2_000_000, None, ["snowman"], held_out=True)


def test_captions_name_every_object_and_the_ground() -> None:
    for scene in list(SCENES.values())[:10]:
        plain = scene.captions()[0]
        assert plain.endswith(f" {scene.ground} ground") and plain.count(" and ") == 1
        assert plain.count(",") == len(scene.placed) - 2
        for one in scene.placed:
            assert one.object.color is None or one.object.color in plain
        assert len(set(scene.captions())) >= 3


def source(**options: Any) -> ProceduralScenes:
    return ProceduralScenes(ProceduralScenes.Config(images=24, size=16, views=3, **options), Context())


def test_the_pool_holds_scenes_as_they_are_seen_from_its_cameras() -> None:
    data = source(split="test", categories=("mug", "tree"))
    index = torch.arange(24)
    batch = data.take(index.numpy())
    assert batch["rgb"].shape == (24, 16, 16, 3) and len(batch["caption"]) == 24
    assert (batch["seed"].view(8, 3) == batch["seed"].view(8, 3)[:, :1]).all() and len(set(batch["seed"].tolist())) == 8
    assert all(int(k) in SEED_RANGES["test"] for k in batch["seed"])
    for k in (0, 4, 11):
        again = data.seen_from(index.numpy()[k : k + 1], data.cameras(index[k : k + 1]))
        assert (again["rgb"][0, 0] - batch["rgb"][k]).abs().max() < 0.5 / 255 + 1e-3
        assert again["depth"].shape == (1, 1, 16, 16)
        assert len(data.scene(int(batch["seed"][k])).placed) == int(batch["objects"][k])
        assert {one.object.category for one in data.scene(int(batch["seed"][k])).placed} <= {"mug", "tree"}


def test_cameras_stand_above_the_ground_and_some_nearer() -> None:
    made = source(near=0.4).made(3, 600)
    assert np.degrees(made["elevation"]).min() >= ELEVATIONS_DEG[0] - 1e-3
    close = made["distance"] <= NEARER[1]
    assert 0.3 < close.mean() < 0.5 and made["distance"].min() >= NEARER[0] > 2 * RADIUS
    assert not (source(near=0.0).made(3, 60)["distance"] <= NEARER[1]).any()


def test_other_options_are_other_pools() -> None:
    folders = {source().folder, source(split="val").folder, source(most=3).folder, source(near=0.1).folder}
    assert len(folders) == 4
    with pytest.raises(UserError, match=r"data\.least=4 is more than data\.most=3"):
        source(least=4, most=3)
    with pytest.raises(UserError, match="Did you mean 'house'"):
        source(categories=("hous",))
