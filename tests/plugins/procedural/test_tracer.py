"""The renderer against closed forms and a plain, slow marcher."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import config, set_num_threads
from numpy.typing import NDArray

from plugins.procedural import parts as P
from plugins.procedural.dataset import orbit
from plugins.procedural.sdf import gradient, signed_distance
from plugins.procedural.tracer import LIGHT_X, LIGHT_Y, LIGHT_Z, render

GREY = (0.3, 0.3, 0.3)
ZERO = (0.0, 0.0, 0.0)
FOV = math.radians(40.0)
F64 = NDArray[np.float64]


def cameras(*angles_deg: tuple[float, float], distance: float = 3.0) -> F64:
    azimuth, elevation = np.radians(np.array(angles_deg)).T
    return orbit(azimuth, elevation, np.full(len(azimuth), distance))


def rays(c2w: F64, size: int) -> tuple[F64, F64]:
    """Eye [3] and directions [size,size,3] of depth 1 through the pixel centres."""
    axis = (2 * (np.arange(size) + 0.5) / size - 1) * math.tan(FOV / 2)
    x, y = np.meshgrid(axis, -axis)
    return c2w[:3, 3], np.stack([x, y, -np.ones_like(x)], -1) @ c2w[:3, :3].T


def test_sphere_depth_normal_and_mask_in_closed_form() -> None:
    radius, at, size = 0.7, np.array([0.1, -0.15, 0.05]), 48
    c2w = cameras((35, 20))
    out = render([P.pack([P.sphere(radius, tuple(at), GREY)])], c2w, FOV, size, size, samples=1)
    eye, directions = rays(c2w[0], size)
    o = eye - at
    a, b, c = (directions**2).sum(-1), directions @ o, o @ o - radius**2
    left = b * b - a * c
    hit = left > 0
    depth = np.where(hit, (-b - np.sqrt(np.maximum(left, 0))) / a, 0)
    np.testing.assert_array_equal(out["mask"][0] > 0, hit)
    np.testing.assert_allclose(out["depth"][0], depth, atol=1e-5)
    normal = np.where(hit[..., None], (o + depth[..., None] * directions) / radius, 0)
    np.testing.assert_allclose(out["normal"][0], normal, atol=1e-4)


def test_hits_lie_on_the_surface_and_misses_miss(primitive: P.Part) -> None:
    packed, size = P.pack([primitive]), 40
    c2w = cameras((25, 35), (200, -20))
    out = render(packed, c2w, FOV, size, size, samples=1)
    for image in range(2):
        eye, directions = rays(c2w[image], size)
        depth, hit = out["depth"][image], out["mask"][image] > 0
        points = eye + depth[..., None] * directions
        assert hit.any()
        assert np.abs(signed_distance(packed, points[hit])).max() < 1.1e-4
        steps = np.linspace(1.5, 4.5, 400)
        along = eye + steps[:, None, None, None] * directions
        nearest = signed_distance(packed, along.reshape(-1, 3)).reshape(400, size, size)
        # Nothing lies in front of a hit, and a missed ray never goes inside.
        before = steps[:, None, None] < np.where(hit, depth, np.inf) - 1e-3
        assert nearest[before].min() > -1e-5
        outward = gradient(packed, points[hit], 1e-6)
        agree = (outward * out["normal"][image][hit]).sum(-1)
        assert np.mean(agree > 1 - 1e-4) > 0.98  # a finite difference astride an edge may differ


def test_a_crowd_of_parts_matches_a_plain_marcher(primitives: dict[str, P.Part]) -> None:
    rng = np.random.default_rng(4)
    parts = [
        part.transformed(tuple(rng.uniform(-1.2, 1.2, 3)), 0.35)
        for part in primitives.values()
        for _ in range(2)
    ]
    packed, size, c2w = P.pack(parts), 64, cameras((70, 25))
    out = render(packed, c2w, FOV, size, size, samples=1)
    eye, directions = rays(c2w[0], size)
    unit = np.linalg.norm(directions, axis=-1)
    depth = np.full((size, size), 1.0)
    for _ in range(150):
        depth += (
            signed_distance(packed, (eye + depth[..., None] * directions).reshape(-1, 3)).reshape(size, size)
            / unit
        )
    hit = depth < 6
    assert np.mean(hit != (out["mask"][0] > 0)) < 1e-3  # grazing rays
    both = hit & (out["mask"][0] > 0)
    assert np.mean(np.abs(depth - out["depth"][0])[both] < 1e-3) > 0.998


def test_colour_follows_the_stated_formula() -> None:
    color = (0.4, 0.5, 0.6)
    c2w = cameras((30, 40))
    out = render(P.pack([P.sphere(0.8, ZERO, color)]), c2w, FOV, 33, 33, samples=1)
    n = out["normal"][0][16, 16]
    light = 0.55 + 0.35 * (0.5 + 0.5 * n[2]) + 0.25 * max(0.0, float(n @ [LIGHT_X, LIGHT_Y, LIGHT_Z]))
    np.testing.assert_allclose(out["rgb"][0][16, 16], np.array(color) * light, atol=1e-5)
    np.testing.assert_allclose(out["rgb"][0][0, 0], 0.5)


def test_colour_is_independent_of_the_view() -> None:
    packed = P.pack([P.box((1, 1, 1), ZERO, (0.3, 0.5, 0.2), "metal")])
    out = render(packed, cameras((0, 10), (20, 25)), FOV, 33, 33, samples=1)
    np.testing.assert_allclose(out["rgb"][0][16, 16], out["rgb"][1][16, 16], atol=1e-6)


def test_supersampling_averages_the_edges() -> None:
    packed, c2w = P.pack([P.sphere(0.7, ZERO, GREY)]), cameras((0, 0))
    fine = render(packed, c2w, FOV, 64, 64, samples=1)["rgb"][0]
    coarse = render(packed, c2w, FOV, 32, 32, samples=2)
    np.testing.assert_allclose(coarse["rgb"][0], fine.reshape(32, 2, 32, 2, 3).mean((1, 3)), atol=2e-3)
    assert set(np.unique(coarse["mask"])) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_ragged_batches_owners_and_threads_agree(primitives: dict[str, P.Part]) -> None:
    objects = [P.pack([primitives[name]]) for name in ("box", "torus")]
    objects.append(P.pack([primitives["cone"], primitives["sphere"]]))
    c2w = cameras((10, 20), (120, 5), (250, 60))
    owner = np.array([2, 0, 2])
    together = render(objects, c2w, FOV, 24, 32, owner=owner)
    assert together["rgb"].shape == (3, 24, 32, 3)
    for b, k in enumerate(owner):
        alone = render(objects[k], c2w[b], FOV, 24, 32)
        for name, value in alone.items():
            np.testing.assert_array_equal(value[0], together[name][b])
    if config.NUMBA_NUM_THREADS > 1:
        set_num_threads(1)
        serial = render(objects, c2w, FOV, 24, 32, owner=owner)
        set_num_threads(config.NUMBA_NUM_THREADS)
        np.testing.assert_allclose(serial["rgb"], together["rgb"], atol=1e-6)


def test_mismatched_cameras_are_refused(primitives: dict[str, P.Part]) -> None:
    one = P.pack([primitives["box"]])
    with pytest.raises(ValueError, match="cameras"):
        render([one, one], cameras((0, 0), (1, 0), (2, 0)), FOV, 8, 8)
    with pytest.raises(ValueError, match="owner"):
        render([one], cameras((0, 0)), FOV, 8, 8, owner=np.array([1]))
