"""The tetrahedral grid against what must hold of any, and marching tetrahedra against closed forms."""

from __future__ import annotations

import itertools

import pytest
import torch
import trimesh
from torch import Tensor

from core.meshing.tetrahedra import TABLE, cross, triangulate
from plugins.tetrahedra.grid import Lattice


def determinants(lattice: Lattice, tets: Tensor) -> Tensor:
    """[T] six times the signed volumes."""
    corners = lattice.positions(tets.view(-1), torch.float64).view(-1, 4, 3)
    return torch.linalg.det(corners[:, 1:] - corners[:, :1])


@pytest.mark.parametrize(("cells", "bound"), [(1, 1.0), (2, 0.5), (5, 1.0), (16, 1.0)])
def test_tetrahedra_fill_the_cube_once(cells: int, bound: float) -> None:
    lattice = Lattice(cells, bound)
    tets = lattice.tetrahedra()
    assert len(tets) == 12 * cells**3 + 12 * cells**2
    volumes = determinants(lattice, tets) / 6
    assert float(volumes.min()) > 0  # positively oriented, none degenerate
    assert float(volumes.sum()) == pytest.approx((2 * bound) ** 3, rel=1e-12)
    full, half = lattice.size**3 / 12, lattice.size**3 / 24
    whole = (volumes - full).abs() < 1e-12
    assert bool((whole | ((volumes - half).abs() < 1e-12)).all())
    assert int((~whole).sum()) == 24 * cells**2  # the halves at the cube's sides


@pytest.mark.parametrize("cells", [1, 3, 16])
def test_faces_are_shared_by_two_or_lie_on_the_cube(cells: int) -> None:
    lattice = Lattice(cells, 1.0)
    tets = lattice.tetrahedra()
    faces = torch.cat([tets[:, list(c)] for c in itertools.combinations(range(4), 3)]).sort(1).values
    unique, count = torch.unique(faces, dim=0, return_counts=True)
    assert int(count.max()) == 2
    lone = lattice.positions(unique[count == 1].view(-1)).view(-1, 3, 3)
    on_side = (lone.abs() == 1).all(1).any(1)  # all three vertices on one side of the cube
    assert bool(on_side.all()) and len(lone) == 6 * 4 * cells**2
    positions = lattice.positions(torch.arange(lattice.vertices + 6 * cells**2))
    assert len(torch.unique(positions, dim=0)) == len(positions)


@pytest.mark.parametrize("cells", [64, 128])
def test_large_grids_have_the_same_shape_on_samples(cells: int) -> None:
    lattice = Lattice(cells, 1.0)
    inside = lattice.all_positions().norm(dim=-1) < 0.5
    tets = lattice.crossed(inside)
    volumes = determinants(lattice, tets) / 6
    torch.testing.assert_close(volumes, torch.full_like(volumes, lattice.size**3 / 12), rtol=1e-9, atol=0)
    edges, faces = triangulate(inside[tets], tets, lattice.vertices)
    a, b = (lattice.positions(e, torch.float64) for e in edges.unbind(1))
    vertices = cross(a, b, a.norm(dim=-1) - 0.5, b.norm(dim=-1) - 0.5)
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * torch.pi * 0.5**3, rel=2e-3)


def test_only_crossed_tetrahedra_are_named_and_none_is_missed() -> None:
    lattice = Lattice(6, 1.0)
    inside = torch.rand(lattice.vertices, generator=torch.Generator().manual_seed(0)) < 0.3
    border = lattice.on_border(torch.arange(lattice.vertices))
    signs = torch.cat([inside & ~border, torch.zeros(6 * 36, dtype=torch.bool)])
    every = lattice.tetrahedra()
    wanted = every[(signs[every].sum(1) % 4) > 0]
    found = lattice.crossed(inside)
    found = found[(signs[found].sum(1) % 4) > 0]
    assert torch.equal(torch.unique(found, dim=0), torch.unique(wanted, dim=0)) and len(found) == len(wanted)


def test_every_sign_pattern_is_outward_and_its_complement_is_turned_over() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    for pattern in range(1, 15):
        inside = torch.tensor([[bool(pattern >> k & 1) for k in range(4)]])
        edges, faces = triangulate(inside, torch.arange(4)[None], 4)
        sign = torch.where(inside[0], -1.0, 1.0).double()
        a, b = edges.unbind(1)
        vertices = cross(corners[a], corners[b], sign[a], sign[b])
        normals = torch.linalg.cross(
            vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]
        )
        outwards = corners[~inside[0]].mean(0) - corners[inside[0]].mean(0)
        assert bool((normals @ outwards > 0).all()), pattern
        assert len(faces) == (2 if inside.sum() == 2 else 1)
    assert bool((TABLE[[0, 15]] == -1).all())


def test_random_signs_give_a_closed_surface() -> None:
    lattice = Lattice(5, 1.0)
    values = torch.rand(lattice.vertices, generator=torch.Generator().manual_seed(1)) - 0.3
    count = lattice.vertices + 6 * 25
    every = torch.cat([values, torch.ones(6 * 25)])
    every[lattice.on_border(torch.arange(count))] = 0.5
    tets = lattice.crossed(values < 0)
    _, faces = triangulate(every[tets] < 0, tets, count)
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed, count_of = torch.unique(sides, dim=0, return_counts=True)
    assert int(count_of.max()) == 1  # each edge once in each direction
    assert torch.equal(directed, torch.unique(directed.flip(1), dim=0))
