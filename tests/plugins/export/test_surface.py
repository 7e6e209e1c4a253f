"""Surfaces against closed forms: where they lie, what they enclose, and what happens where there are none."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from core.config.base import Config
from core.contracts import Context, Geometry
from core.meshing import cleanup
from core.meshing.level import iso_level
from core.meshing.surface import density_grid, extract, fill_cavities, sampler
from core.types import Mesh
from plugins.export.assets import SurfaceConfig, TexturedConfig, dense_surface, textured_mesh


def ball(radius, center=(0.0, 0.0, 0.0)):
    return lambda p: (p - p.new_tensor(center)).norm(dim=-1) - radius


def box(half, center=(0.0, 0.0, 0.0)):
    def distance(p):
        q = (p - p.new_tensor(center)).abs() - p.new_tensor(half)
        return q.clamp(min=0).norm(dim=-1) + q.max(-1).values.clamp(max=0)

    return distance


def edges_used_twice(faces):
    ends = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    return set(np.unique(ends, axis=0, return_counts=True)[1].tolist()) == {2}


def area(vertices, faces):
    return np.linalg.norm(cleanup.face_vectors(vertices, faces), axis=1).sum() / 2


@pytest.mark.parametrize("peak", [20.0, 1e5])
def test_a_ball_of_constant_density_has_its_radius_area_and_volume(field_scene, peak):
    center = np.array([0.1, -0.2, 0.05], np.float32)
    scene = field_scene(ball(0.5, center.tolist()), peak=peak, softness=0.0)
    surface = extract(scene.geometry, 1.0, 64)
    radius = np.linalg.norm(surface.vertices - center, axis=1)
    assert np.abs(radius - 0.5).max() < 0.05 * surface.cell  # far below a cell although the field is a step
    assert cleanup.signed_volume(surface.vertices, surface.faces) == pytest.approx(4 / 3 * math.pi * 0.125, rel=0.01)
    assert area(surface.vertices, surface.faces) == pytest.approx(math.pi, rel=0.01)
    assert edges_used_twice(surface.faces)


def test_cleaning_keeps_a_box_where_it_was(field_scene):
    half, center = (0.4, 0.3, 0.5), (0.05, 0.1, -0.1)
    scene = field_scene(box(half, center), peak=300.0, softness=0.0)
    surface = dense_surface(scene, SurfaceConfig(resolution=96))
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    np.testing.assert_allclose((high - low) / 2, half, atol=0.01)
    np.testing.assert_allclose((high + low) / 2, center, atol=0.003)
    vertices, faces = cleanup.decimate(surface.vertices, surface.faces, 2000)
    assert len(faces) <= 2000
    assert cleanup.signed_volume(vertices, faces) == pytest.approx(8 * math.prod(half), rel=0.01)


def test_smoothing_does_not_shrink_a_ball(field_scene):
    surface = extract(field_scene(ball(0.5), softness=0.0).geometry, 1.0, 64)
    rng = np.random.default_rng(0)
    rough = surface.vertices * (1 + 0.01 * rng.standard_normal((len(surface.vertices), 1)).astype(np.float32))
    smooth = cleanup.taubin(rough, surface.faces, 10)
    assert np.linalg.norm(smooth, axis=1).mean() == pytest.approx(0.5, abs=2e-3)
    assert np.linalg.norm(smooth, axis=1).std() < 0.4 * np.linalg.norm(rough, axis=1).std()


def soft_ball(cells, peak, softness):
    axis = torch.linspace(-1, 1, cells)
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    return (peak * torch.sigmoid((0.5 - radius) / softness)).numpy()


@pytest.mark.parametrize(("peak", "softness"), [(40.0, 0.02), (1000.0, 0.02), (200.0, 0.05)])
def test_the_level_lies_between_the_rendered_silhouette_and_the_rendered_depth(peak, softness):
    """A soft ball looks larger in outline (half opaque columns) than its depth says: the level must not leave that span."""
    level = iso_level(soft_ball(81, peak, softness), 2 / 80)
    found = 0.5 - softness * math.log(level.value / (peak - level.value))
    path = torch.linspace(-1, 1, 20001, dtype=torch.float64)

    def depth(offset):
        return peak * torch.sigmoid((0.5 - torch.sqrt(path**2 + offset**2)) / softness) * (path[1] - path[0])

    median = -float(path[int((depth(0.0).cumsum(0) < math.log(2)).sum())])
    outline = max(r for r in np.linspace(0.3, 0.99, 200) if float(depth(r).sum()) >= math.log(2))
    assert median - 0.01 < found < outline + 0.01


def test_the_level_does_not_depend_on_hidden_or_empty_space():
    grid = soft_ball(65, 200.0, 0.01)
    hollow = grid.copy()
    hollow[28:37, 28:37, 28:37] = 0
    wide = np.pad(grid, 16)
    values = [iso_level(g, 2 / 64).value for g in (grid, hollow, wide)]
    np.testing.assert_allclose(values, values[0], rtol=0.05)


def test_the_sparse_grid_equals_the_dense_one_where_it_matters(field_scene):
    geometry = field_scene(ball(0.3, (0.4, 0.3, -0.2)), peak=100.0, softness=0.01).geometry
    grid = density_grid(sampler(geometry, "density"), 1.0, 48)
    asked = geometry.asked
    axis = torch.linspace(-1, 1, 48)
    full = geometry.density(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)).numpy()
    np.testing.assert_allclose(grid.reshape(-1), full, atol=0.01 * 47)
    assert np.abs(grid.reshape(-1) - full)[full > 1].max() < 1e-2
    assert asked < 0.5 * 48**3


def test_an_axis_aligned_sheet_of_one_cell_is_found(field_scene):
    cell = 2 / 63
    for offset in (0.0, cell):
        scene = field_scene(box((0.5, 0.5, 0.6 * cell), (0, 0, cell / 2 + offset)), peak=400.0, softness=0.0)
        surface = extract(scene.geometry, 1.0, 64)
        volume = cleanup.signed_volume(surface.vertices, surface.faces)
        assert volume == pytest.approx(1.2 * cell, rel=0.1)


def test_cavities_are_filled_and_holes_are_not(field_scene):
    shell = extract(field_scene(lambda p: ball(0.5)(p).abs() - 0.06, peak=300.0, softness=0.0).geometry, 1.0, 64)
    expected = 4 / 3 * math.pi * 0.56**3
    assert cleanup.signed_volume(shell.vertices, shell.faces) == pytest.approx(expected, rel=0.02)
    solid = np.zeros((9, 9, 9), np.float32)
    solid[2:7, 2:7, 2:7] = 1
    solid[4, 4, 4:] = 0
    assert np.array_equal(fill_cavities(solid, 0.5, 1.0), solid)


def test_small_parts_go_and_a_swarm_stays(field_scene):
    scene = field_scene(lambda p: torch.minimum(ball(0.5)(p), ball(0.05, (0.8, 0, 0.0))(p)), softness=0.002)
    surface = dense_surface(scene, SurfaceConfig(resolution=64))
    assert surface.vertices[:, 0].max() < 0.6
    kept = dense_surface(scene, SurfaceConfig(resolution=64, smallest_part=0.0))
    assert kept.vertices[:, 0].max() > 0.8
    quad = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    swarm = np.concatenate([quad * (0.1 if i else 0.9) + i for i in range(80)])
    faces = np.arange(240).reshape(-1, 3)
    assert len(cleanup.largest_parts(swarm, faces, 0.02)[1]) > 0.8 * 40


def test_two_large_parts_both_stay(field_scene):
    scene = field_scene(lambda p: torch.minimum(ball(0.3, (0, 0.5, 0))(p), ball(0.25, (0, -0.5, 0))(p)), softness=0.002)
    mesh = textured_mesh(scene, TexturedConfig(resolution=64, texture=256, faces=3000))
    assert float(mesh.vertices[:, 1].max()) > 0.77
    assert float(mesh.vertices[:, 1].min()) < -0.72


def test_what_touches_the_cube_is_closed_there(field_scene):
    surface = extract(field_scene(lambda p: p[:, 2] - 0.1, softness=0.0).geometry, 1.0, 32)
    assert edges_used_twice(surface.faces)
    assert cleanup.signed_volume(surface.vertices, surface.faces) == pytest.approx(4 * 1.1, rel=0.07)


@pytest.mark.parametrize("angle", [10.0, 60.0])
def test_normals_are_smooth_below_the_crease_and_sharp_above(angle):
    turn = math.radians(angle)
    vertices = np.array([[0, 0, 0], [0, 1, 0], [-1, 0, 0], [math.cos(turn), 0, -math.sin(turn)]], np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 1]])
    normals = cleanup.corner_normals(vertices, faces, 30.0)
    flat = cleanup.face_vectors(vertices, faces)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    joined = normals[0, 0] @ normals[1, 0]
    assert joined == pytest.approx(1.0 if angle < 30 else math.cos(turn), abs=1e-5)
    np.testing.assert_allclose(normals[0, 2], flat[0], atol=1e-6)
    if angle < 30:
        np.testing.assert_allclose(normals[0, 0], (flat[0] + flat[1]) / np.linalg.norm(flat[0] + flat[1]), atol=1e-5)


def test_flaps_left_by_decimation_are_dropped():
    faces = np.array([[0, 1, 2], [3, 4, 5], [5, 4, 3], [1, 3, 2]])
    assert cleanup.without_flaps(faces).tolist() == [[0, 1, 2], [1, 3, 2]]


class Analytic(Geometry):
    def __init__(self, **methods):
        super().__init__(Config(), Context())
        self.methods = methods


class Signed(Analytic):
    def sdf(self, points):
        return self.methods["distance"](points)


class Meshed(Analytic):
    def mesh(self, resolution):
        return self.methods["mesh"]


def test_a_signed_distance_gives_its_zero_set():
    surface = extract(Signed(distance=ball(0.6)), 1.0, 48)
    assert np.abs(np.linalg.norm(surface.vertices, axis=1) - 0.6).max() < 1e-3
    assert cleanup.signed_volume(surface.vertices, surface.faces) == pytest.approx(4 / 3 * math.pi * 0.216, rel=0.01)
    assert not surface.soft


def test_a_mesh_is_used_as_it_is_and_turned_outwards():
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    inwards = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    surface = extract(Meshed(mesh=Mesh(corners, inwards)), 1.0, 8)
    np.testing.assert_array_equal(surface.vertices, corners.numpy())
    assert cleanup.signed_volume(surface.vertices, surface.faces) == pytest.approx(-1 / 6)
    assert cleanup.signed_volume(surface.vertices, cleanup.outwards(surface.vertices, surface.faces)) == pytest.approx(
        1 / 6
    )


@pytest.mark.parametrize(
    "geometry",
    [Signed(distance=lambda p: p.norm(dim=-1) + 0.1), Meshed(mesh=Mesh(torch.zeros(0, 3), torch.zeros(0, 3).long()))],
)
def test_empty_shapes_are_told_and_not_raised(geometry, caplog):
    with caplog.at_level(logging.WARNING, "maquette"):
        assert extract(geometry, 1.0, 16) is None
    assert "the surface is empty" in caplog.text


@pytest.mark.parametrize("peak", [0.0, 0.001, float("nan")])
def test_empty_fields_are_told_and_not_raised(field_scene, caplog, peak):
    with caplog.at_level(logging.WARNING, "maquette"):
        assert extract(field_scene(ball(0.5), peak=peak).geometry, 1.0, 24) is None
    assert "the surface is empty" in caplog.text


def test_a_level_above_the_density_is_told(field_scene, caplog):
    with caplog.at_level(logging.WARNING, "maquette"):
        assert extract(field_scene(ball(0.5), peak=10.0).geometry, 1.0, 24, level=50.0) is None
    assert "stays under 50" in caplog.text


def test_fog_gives_its_densest_part_with_a_warning(field_scene, caplog):
    with caplog.at_level(logging.WARNING, "maquette"):
        surface = extract(field_scene(ball(0.5), peak=0.3, softness=0.02).geometry, 1.0, 48)
    assert "thin" in caplog.text
    assert np.linalg.norm(surface.vertices, axis=1).mean() == pytest.approx(0.5, abs=0.08)
