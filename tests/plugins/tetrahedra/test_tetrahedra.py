"""The geometry: surfaces of known shapes, gradients, starts, what losses read, and mistakes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from torch import Tensor

from core.contracts import Context, Geometry, Step
from core.errors import UserError
from core.losses import laplacian, normal_consistency, sdf_entropy
from core.testing import check_component
from core.testing.reference import Ball, cameras, scene
from core.types import Mesh, Render
from plugins.tetrahedra.tetrahedra import Tetrahedra


def made(**options: Any) -> Tetrahedra:
    return Tetrahedra(Tetrahedra.Config(**{"resolution": 16, "levels": 4, "log2_table": 10, **options}), Context())


def solid(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.detach().numpy(), mesh.faces.numpy(), process=False)


def seen(**extras: Tensor) -> Render:
    return Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1), cameras(2, 1), extras=extras)


def test_it_keeps_its_contract() -> None:
    small = {"resolution": 8, "levels": 2, "log2_table": 8}
    check_component("geometry", "tetrahedra", options=small)


@pytest.mark.parametrize(("resolution", "error"), [(16, 0.02), (32, 0.005), (64, 0.0012)])
def test_a_sphere_is_closed_outward_and_converges(resolution: int, error: float) -> None:
    mesh = solid(made(resolution=resolution).surface())
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(math.pi / 6, rel=error)
    away = torch.as_tensor(mesh.vertices).norm(dim=-1)
    assert float((away - 0.5).abs().max()) < 0.3 / resolution**1.5


def test_a_band_keeps_the_surface_and_cuts_what_is_deep() -> None:
    whole, cut = made(), made(band=1.5)
    deep, reach = whole.distances.detach().min(), cut.distances.detach().abs().max()
    assert float(deep) < -0.4 and float(reach) == pytest.approx(1.5 * 2 / 16)
    torch.testing.assert_close(whole.surface().vertices, cut.surface().vertices)


def test_an_ellipsoid_and_a_mesh_file(tmp_path: Path) -> None:
    mesh = solid(made(resolution=32, start="ellipsoid", radii=(0.3, 0.5, 0.7)).surface())
    assert mesh.extents == pytest.approx([0.6, 1.0, 1.4], abs=5e-3)
    trimesh.creation.torus(0.6, 0.25, 48, 24).export(tmp_path / "ring.ply")
    ring = solid(made(resolution=32, start="mesh", file=str(tmp_path / "ring.ply"), radius=0.85).surface())
    assert ring.is_watertight and ring.euler_number == 0
    assert ring.volume == pytest.approx(2 * math.pi**2 * 0.6 * 0.25**2, rel=0.03)


def test_what_touches_the_cube_is_closed_there() -> None:
    mesh = solid(made(radius=1.2).surface())
    assert mesh.is_watertight and mesh.euler_number == 2
    assert float(abs(mesh.vertices).max()) <= 1.0
    assert mesh.volume == pytest.approx(6.3, abs=0.5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    geometry = made(resolution=4, radius=0.55).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        geometry.shift.copy_(torch.randn(geometry.shift.shape, generator=generator, dtype=torch.float64))
        # Off the ties of a regular grid: a vertex with distance 0 would change its sign.
        geometry.distances.add_(0.02 * torch.randn(len(geometry.distances), generator=generator, dtype=torch.float64))
    weight = torch.randn(len(geometry.surface().vertices), 3, generator=generator, dtype=torch.float64)
    edges, _ = geometry._cut()
    inner = edges[~geometry.lattice.on_border(edges.view(-1)).view(-1, 2).any(1)]

    def value() -> Tensor:
        return (geometry.surface().vertices * weight).sum()

    value().backward()
    for parameter in (geometry.distances, geometry.shift):
        gradient = parameter.grad
        assert gradient is not None
        for index in inner[::9, 0].tolist():
            flat, slope = parameter.data[index].view(-1), gradient[index].view(-1)
            before = float(flat[0])
            ends = []
            for sign in (1, -1):
                flat[0] = before + sign * 1e-6
                ends.append(float(value().detach()))
            flat[0] = before
            assert float(slope[0]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_offsets_move_the_surface_but_turn_no_tetrahedron_over() -> None:
    geometry = made(resolution=6, offset=0.2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        geometry.shift.copy_(100 * torch.randn(geometry.shift.shape, generator=generator))
    lattice = geometry.lattice
    tets = lattice.tetrahedra()
    corners = geometry._places(tets.view(-1)).view(-1, 4, 3).detach()
    assert float(torch.linalg.det(corners[:, 1:] - corners[:, :1]).min()) > 0
    assert solid(geometry.surface()).is_watertight


def test_the_distance_interpolates_the_grid_and_grows_outside() -> None:
    geometry = made(resolution=16)
    nodes = geometry.lattice.all_positions()
    inner = ~geometry.lattice.on_border(torch.arange(len(nodes)))
    torch.testing.assert_close(geometry.sdf(nodes)[inner], geometry.distances[inner], atol=1e-5, rtol=0)
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(geometry.sdf(points), points.norm(dim=-1) - 0.5, atol=0.03, rtol=0)
    assert float(geometry.sdf(torch.tensor([[3.0, 0, 0]])).detach()) == pytest.approx(2.5, abs=0.02)
    surface = geometry.surface().vertices
    torch.testing.assert_close(geometry.sdf(surface), torch.zeros(len(surface)), atol=1e-5, rtol=0)
    line = torch.stack([torch.linspace(-0.99, 0.99, 20001)] * 3, 1) * torch.tensor([1.0, 0.7, 0.31])
    assert float(geometry.sdf(line).diff().abs().max()) < 3e-4  # continuous across tetrahedra


def test_losses_read_the_surface() -> None:
    geometry = made(resolution=12)
    render, step = seen(), Step(0, 10)
    for name, loss, least in (
        ("sdf-edges", sdf_entropy, 0.5), ("face-normals", normal_consistency, 1e-4), ("umbrella", laplacian, 1e-7)
    ):  # fmt: skip
        render.extras[name] = geometry.extra(name, render, step)
        value = loss(render, step)
        assert least < float(value.detach()) < 1
        geometry.zero_grad()
        value.backward()
        assert geometry.distances.grad is not None and float(geometry.distances.grad.abs().sum()) > 0
    flat = torch.tensor([[0.0, 0, 1]]).expand(5, 2, 3)
    assert float(normal_consistency(seen(**{"face-normals": flat}), step)) == 0
    folded = torch.tensor([[[0.0, 0, 1], [0, 1, 0]]])
    assert float(normal_consistency(seen(**{"face-normals": folded}), step)) == 1
    edges = torch.tensor([[1.0, -1.0]])
    assert float(sdf_entropy(seen(**{"sdf-edges": edges}), step)) == pytest.approx(math.log(1 + math.e))


def test_descending_the_regularisers_smooths_a_rough_ball() -> None:
    geometry = made(resolution=12)
    with torch.no_grad():
        noise = torch.randn(len(geometry.distances), generator=torch.Generator().manual_seed(0))
        geometry.distances.add_(0.05 * noise)
    optimizer = torch.optim.Adam([geometry.distances], lr=2e-3)
    history = []
    for _ in range(25):
        normals = geometry.extra("face-normals", seen(), Step(0, 1))
        value = normal_consistency(seen(**{"face-normals": normals}), Step(0, 1))
        history.append(float(value.detach()))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert history[-1] < 0.7 * history[0]


class Bare(Geometry):
    """A ball that is nothing but a mesh."""

    def mesh(self, resolution: int) -> Mesh:
        return Ball().mesh(resolution)


class Fog(Geometry):
    """A ball that is nothing but a density."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        return Ball().field(points)


@pytest.mark.parametrize("other", [Ball, Fog, Bare])
def test_it_starts_from_distances_densities_and_meshes(other: type[Geometry]) -> None:
    geometry = made(resolution=24)
    with torch.no_grad():
        geometry.shift.fill_(1.0)
    context = Context()
    given = other(None, context)
    geometry.init_from(given)
    mesh = solid(geometry.surface())
    assert mesh.is_watertight and float(geometry.shift.detach().abs().max()) == 0
    away = torch.as_tensor(mesh.vertices).norm(dim=-1)
    assert float((away - 0.5).abs().max()) < 0.05
    if other is not Bare:
        at = geometry.mesh(0).vertices
        wanted = given.features(at)
        assert float((geometry.features(at) - wanted).abs().mean().detach()) < 0.15


def test_a_copy_is_exact_and_an_empty_stage_is_named() -> None:
    first, second = made(radius=0.3), made()
    with torch.no_grad():
        first.shift.normal_(generator=torch.Generator().manual_seed(0))
    second.init_from(first)
    assert torch.equal(first.surface().vertices, second.surface().vertices)

    class Nothing(Fog):
        def field(self, points: Tensor) -> dict[str, Tensor]:
            return {"density": points[:, 0] * 0, "features": points}

    with pytest.raises(UserError, match="nothing to start from"):
        second.init_from(Nothing(None, Context()))


def test_an_empty_surface_is_an_error_while_training_and_empty_in_an_export() -> None:
    geometry = made()
    with torch.no_grad():
        geometry.distances.abs_()
    assert len(geometry.mesh(8).faces) == 0
    with pytest.raises(UserError, match="the surface is empty"):
        geometry.surface()


def test_fixed_shapes_learn_colours_only() -> None:
    geometry = made(fixed=True)
    assert not geometry.distances.requires_grad and not geometry.surface().vertices.requires_grad
    names = {id(p) for g in geometry.param_groups() for p in g["params"]}
    assert id(geometry.distances) not in names and id(geometry.table) in names


def test_mistakes_in_options_are_named() -> None:
    with pytest.raises(UserError, match=r"geometry\.file"):
        made(start="mesh")
    with pytest.raises(UserError, match="no file"):
        made(start="mesh", file="nowhere.glb")
    with pytest.raises(ValueError, match="radii"):
        made(start="ellipsoid", radii=(0.5, -1.0, 0.5))
    with pytest.raises(ValueError, match="resolution"):
        made(resolution=2)
    assert scene().geometry is not None
