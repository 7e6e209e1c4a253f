"""The A15 grid against its published counts, and shapes fitted to it against their exact distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from core.contracts import Context
from core.errors import UserError
from plugins.mesh_diffusion.fitting import Space
from plugins.mesh_diffusion.lattice import tet_grid
from plugins.procedural.shapes import ProceduralShapes


def ball(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=-1) - 0.6


def ring(points: np.ndarray) -> np.ndarray:
    return np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.55, points[:, 2]) - 0.25


@pytest.mark.parametrize(("resolution", "vertices", "tets"), [(16, 380, 1410), (24, 1422, 6210), (32, 3544, 16674)])
def test_the_grid_has_the_published_counts(resolution: int, vertices: int, tets: int) -> None:
    grid = tet_grid(resolution)
    assert (len(grid), len(grid.tets)) == (vertices, tets)


def test_the_grid_is_the_a15_lattice() -> None:
    grid = tet_grid(16)
    squared = (grid.points[grid.edges[:, 0]] - grid.points[grid.edges[:, 1]]).square().sum(-1)
    assert set(squared.tolist()) == {4, 5, 6}
    corners = grid.points[grid.tets].double()
    assert bool((torch.linalg.det(corners[:, 1:] - corners[:, :1]) > 0).all())
    assert int(grid.points.min()) == 1 and int(grid.points.max()) == 15


def test_the_cube_keeps_every_vertex_and_zeros_elsewhere() -> None:
    grid = tet_grid(16)
    values = torch.rand(2, len(grid), 4, generator=torch.Generator().manual_seed(0)) + 0.5
    cube = grid.to_cube(values)
    assert cube.shape == (2, 4, 16, 16, 16) and torch.equal(grid.from_cube(cube), values)
    assert int(grid.mask.sum()) == len(grid) and not bool((cube * (1 - grid.mask)).any())
    x, y, z = grid.points[100].tolist()
    assert torch.equal(cube[1, :, x - 1, y - 1, z - 1], values[1, 100])


@pytest.mark.parametrize(("distance", "euler"), [(ball, 2), (ring, 0)])
def test_a_fitted_solid_is_closed_and_near_the_true_surface(distance: object, euler: int) -> None:
    space = Space(tet_grid(24))
    values = space.fit(distance)  # type: ignore[arg-type]
    made = space.mesh(values)
    mesh = trimesh.Trimesh(made.vertices.numpy(), made.faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.euler_number == euler and mesh.volume > 0
    flat = torch.cat([values[:, :1], torch.zeros_like(values[:, 1:])], 1)
    error, without = (float(space.errors(v, distance).mean()) for v in (values, flat))  # type: ignore[arg-type]
    assert error < 0.05 and without > 5 * error
    assert set(values[:, 0].unique().tolist()) == {-1.0, 1.0} and float(values[:, 1:].abs().max()) <= 0.99 + 1e-6


def test_offsets_move_only_vertices_of_crossing_edges() -> None:
    grid = tet_grid(16)
    values = Space(grid).fit(ball)
    ends = grid.edges[values[grid.edges[:, 0], 0] != values[grid.edges[:, 1], 0]].unique()
    still = torch.ones(len(grid), dtype=torch.bool)
    still[ends] = False
    assert not bool(values[still, 1:].any()) and bool(values[ends, 1:].any())


def test_any_signs_give_a_closed_surface() -> None:
    space = Space(tet_grid(16))
    noise = torch.randn(len(space.grid), 4, generator=torch.Generator().manual_seed(1))
    made = space.mesh(noise)
    assert trimesh.Trimesh(made.vertices.numpy(), made.faces.numpy(), process=False).is_watertight


def test_procedural_solids_are_fitted_and_their_splits_differ() -> None:
    data = ProceduralShapes(ProceduralShapes.Config(categories=["mug", "sofa"], count=8), Context())
    space = Space(tet_grid(16))
    shape = data.shape(1)
    assert shape.category == "sofa" and float(space.errors(space.fit(shape.distance), shape.distance).mean()) < 0.05
    assert np.abs(shape.distance(shape.surface(50).numpy())).max() < 1e-3
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    assert not np.allclose(shape.distance(points), data.shape(1, "test").distance(points))
    with pytest.raises(UserError, match="'mugg' is no kind"):
        ProceduralShapes(ProceduralShapes.Config(categories=["mugg"]), Context())
