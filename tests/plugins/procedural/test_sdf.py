"""Distances of the primitives and of their union, against references that share no formula with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from plugins.procedural import parts as P
from plugins.procedural.extents import bounding_box, bounding_radius
from plugins.procedural.sdf import distance_and_part, distance_grid, gradient, signed_distance

GREY = (0.3, 0.3, 0.3)
ZERO = (0.0, 0.0, 0.0)
F64 = NDArray[np.float64]


def points_around(n: int = 400, seed: int = 0) -> F64:
    return np.random.default_rng(seed).uniform(-1.1, 1.1, (n, 3))


def to_local(part: P.Part, points: F64) -> F64:
    return (points - np.array(part.at)) @ np.array(part.rotation).reshape(3, 3)


def polygon_distance(points: F64, corners: F64) -> F64:
    """Signed distance [N] of 2D points to a closed polygon [K,2]: point to segment, and the crossing rule."""
    a, b = corners, np.roll(corners, -1, 0)
    rel, edge = points[:, None] - a, b - a
    length = np.maximum((edge**2).sum(-1), 1e-30)
    s = np.clip((rel * edge).sum(-1) / length, 0, 1)
    away = np.linalg.norm(rel - s[..., None] * edge, axis=-1).min(1)
    y = points[:, 1:2]
    straddles = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(edge[:, 1] == 0, 1.0, edge[:, 1])
    cross = points[:, :1] < a[:, 0] + (y - a[:, 1]) / rise * edge[:, 0]
    inside = (straddles & cross).sum(1) % 2 == 1
    return np.where(inside, -away, away)


def extruded(flat: F64, deep: F64) -> F64:
    """Distance of a profile's distance `flat` drawn out to |.| = the zero of `deep`."""
    both = np.stack([flat, deep])
    return np.linalg.norm(np.maximum(both, 0), axis=0) + np.minimum(both.max(0), 0)


def revolved(local: F64, profile: list[tuple[float, float]]) -> F64:
    """A profile (radius, z) turned about z; corners on the axis are mirrored so that the axis is no edge."""
    mirrored = profile + [(-q, z) for q, z in reversed(profile)]
    flat = np.stack([np.linalg.norm(local[:, :2], axis=1), local[:, 2]], 1)
    return polygon_distance(flat, np.array(mirrored))


def reference(part: P.Part, points: F64) -> F64:
    x, (a, b, c, d) = to_local(part, points), part.size
    if part.shape == "sphere":
        return np.linalg.norm(x, axis=1) - a
    if part.shape == "ellipsoid":
        u, v = np.meshgrid(np.linspace(0, math.pi, 500), np.linspace(0, 2 * math.pi, 700))
        shell = np.stack([a * np.sin(u) * np.cos(v), b * np.sin(u) * np.sin(v), c * np.cos(u)], -1).reshape(
            -1, 3
        )
        from scipy.spatial import cKDTree

        return cKDTree(shell).query(x)[0] * np.where(((x / [a, b, c]) ** 2).sum(1) < 1, -1, 1)
    if part.shape == "box":
        h = np.array([a, b, c]) / 2 - d
        square = np.array([(h[0], h[1]), (-h[0], h[1]), (-h[0], -h[1]), (h[0], -h[1])])
        return extruded(polygon_distance(x[:, :2], square), np.abs(x[:, 2]) - h[2]) - d
    if part.shape == "cone":
        if d == 0:
            return revolved(x, [(a, -c / 2), (b, c / 2)])
        slope = (b - a) / c
        z0, z1 = -c / 2 + d, c / 2 - d

        def radius(z: float) -> float:
            return a + slope * (z + c / 2) - d * math.sqrt(1 + slope**2)

        if radius(z1) < 0:
            z1 = z0 - radius(z0) / slope
        return revolved(x, [(radius(z0), z0), (max(radius(z1), 0.0), z1)]) - d
    if part.shape == "round_cone":
        s = np.linspace(0, 1, 4001)
        z, r = (s - 0.5) * c, a + (b - a) * s
        q = np.linalg.norm(x[:, :2], axis=1)[:, None]
        return (np.hypot(q, x[:, 2:] - z) - r).min(1)
    if part.shape == "torus":
        t = np.radians(np.linspace(-c / 2, c / 2, 4001))
        ring = np.stack([a * np.cos(t), a * np.sin(t), 0 * t], 1)
        return np.linalg.norm(x[:, None] - ring, axis=-1).min(1) - b
    if part.shape == "tube":
        flat = np.stack([np.linalg.norm(x[:, :2], axis=1), x[:, 2]], 1)
        wall = [(a, -c / 2), (a, c / 2), (a - b, c / 2), (a - b, -c / 2)]
        return polygon_distance(flat, np.array(wall))
    roof = np.array([(-a / 2, -b / 2), (a / 2, -b / 2), (0, b / 2)])
    return extruded(polygon_distance(x[:, [0, 2]], roof), np.abs(x[:, 1]) - c / 2)


def test_distance_matches_reference(name: str, primitive: P.Part) -> None:
    part, points = primitive, points_around()
    expected = reference(part, points)
    assert (expected < 0).any() or name == "disc"
    tolerance = 2e-4 if part.shape in ("ellipsoid", "torus", "round_cone") else 2e-6
    # The sampled references are a bit too far by spacing^2 / 2 distance, worst near the surface.
    if part.shape == "ellipsoid":
        keep = np.abs(expected) > 0.02
        points, expected = points[keep], expected[keep]
    np.testing.assert_allclose(signed_distance(P.pack([part]), points), expected, atol=tolerance)


def test_gradient_has_unit_length(primitive: P.Part) -> None:
    packed, points, h = P.pack([primitive]), points_around(seed=1), 1e-5
    slope = np.stack(
        [
            (signed_distance(packed, points + h * e) - signed_distance(packed, points - h * e)) / (2 * h)
            for e in np.eye(3)
        ]
    )
    length = np.linalg.norm(slope, axis=0)
    assert length.max() < 1 + 1e-6
    # Only points astride a medial axis may fall short.
    assert np.mean(np.abs(length - 1) < 1e-6) > 0.98


def test_ellipsoid_on_its_axes_and_at_its_centre() -> None:
    packed = P.pack([P.ellipsoid((0.8, 0.5, 0.2), ZERO, GREY)])
    points = np.array([ZERO, (1.0, 0, 0), (0, 0.9, 0), (0, 0, 0.1), (0, 0, -0.5), (0.8, 0, 0)])
    np.testing.assert_allclose(signed_distance(packed, points), [-0.2, 0.2, 0.4, -0.1, 0.3, 0], atol=1e-7)


def test_union_is_the_nearest_part_whatever_the_culling(primitives: dict[str, P.Part]) -> None:
    everything = list(primitives.values())
    points = points_around(600, seed=2)
    each = np.stack([signed_distance(P.pack([part]), points) for part in everything])
    distance, nearest = distance_and_part(P.pack(everything), points)
    np.testing.assert_allclose(distance, each.min(0), atol=1e-12)
    np.testing.assert_allclose(each[nearest, np.arange(len(points))], distance, atol=1e-12)


def test_gradient_is_the_normal_of_a_sphere(primitives: dict[str, P.Part]) -> None:
    part = primitives["sphere"]
    points = points_around(50)
    away = points - np.array(part.at)
    np.testing.assert_allclose(
        gradient(P.pack([part]), points), away / np.linalg.norm(away, axis=1, keepdims=True), atol=1e-6
    )


def test_extents_touch_the_surface(primitive: P.Part) -> None:
    packed = P.pack([primitive])
    centre = np.array([0.15, -0.1, 0.2])
    low, high = bounding_box(packed)
    n = 121
    axis = np.linspace(-1.1, 1.1, n)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    inside = grid[distance_grid(packed, n, 1.1) < 0]
    cell = 2.2 / (n - 1)
    # No point sticks out, and the surface comes within a few cells of the box (a pointed tip falls between cells).
    assert (inside >= low - 1e-6).all()
    assert (inside <= high + 1e-6).all()
    assert (inside.min(0) - low < 3.5 * cell).all()
    assert (high - inside.max(0) < 3.5 * cell).all()
    reach = np.linalg.norm(inside - centre, axis=1).max()
    assert reach <= bounding_radius(packed, centre) + 1e-6 < reach + 4.5 * cell


def test_grid_agrees_with_the_distance_near_the_surface(primitives: dict[str, P.Part]) -> None:
    packed = P.pack(list(primitives.values())[:6])
    grid = distance_grid(packed, 40, 1.0)
    axis = np.linspace(-1, 1, 40)
    exact = signed_distance(packed, np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3))
    exact = exact.reshape(grid.shape)
    near = np.abs(exact) < 0.04  # under half a cell's diagonal, so in no filled block
    np.testing.assert_allclose(grid[near], exact[near], atol=1e-6)
    np.testing.assert_array_equal(grid < 0, exact < 0)


def test_a_sphere_swallowing_the_other_becomes_a_ball() -> None:
    assert P.round_cone(ZERO, (0.1, 0, 0), 0.5, 0.2, GREY).shape == "sphere"


def test_rotation_turns_about_x_then_y_then_z() -> None:
    turn = np.array(P.rotation_xyz((90, 90, 0))).reshape(3, 3)
    np.testing.assert_allclose(turn @ [0, 1, 0], [1, 0, 0], atol=1e-12)  # y -> z about x, z -> x about y


@pytest.mark.parametrize("bad", [[], [P.sphere(-1.0, ZERO, GREY)], [P.sphere(math.nan, ZERO, GREY)]])
def test_pack_refuses_impossible_parts(bad: list[P.Part]) -> None:
    with pytest.raises(ValueError, match="part"):
        P.pack(bad)
