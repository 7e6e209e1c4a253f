"""Converters on shapes with closed forms, in chains, and asked for what cannot be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import trimesh
from torch import Tensor

from core.contracts import Context, Geometry, Scene
from core.convert import convert, representations, scene_mesh
from core.discovery import get_registry
from core.errors import UserError
from core.meshing.distance import signed_distance
from core.testing import check_component, reference
from core.testing.converters import DottedBall
from core.types import Mesh, Points
from plugins.converters.mesh_to_sdf import MeshToSdf
from plugins.converters.mesh_to_splats import MeshToSplats, turn_up

NAMES = ["field-to-mesh", "splats-to-mesh", "mesh-to-splats", "mesh-to-sdf", "mesh-to-uv", "field-to-tetrahedra"]
SMALL: dict[str, dict[str, Any]] = {
    "field-to-tetrahedra": {"resolution": 12}, "field-to-mesh": {"resolution": 48}, "mesh-to-sdf": {"resolution": 16}
}  # fmt: skip


def scene_of(kind: type[Geometry]) -> Scene:
    context = Context()
    scene = reference.scene(context)
    scene.geometry = context.parts["geometry"] = kind(None, context)
    return scene


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_its_contract(name: str) -> None:
    check_component("converter", name, options=SMALL.get(name, {}))


class Fog(Geometry):
    """The reference ball's density and colours, and nothing else."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        return reference.Ball().field(points)


class Bare(Geometry):
    """A mesh with colours, and nothing else."""

    def mesh(self, resolution: int) -> Mesh:
        made = reference.Ball().mesh(resolution)
        return Mesh(made.vertices.detach(), made.faces, colors=(made.vertices.detach() + 1) / 2)


def test_a_density_becomes_a_closed_coloured_ball() -> None:
    mesh = convert(scene_of(Fog), "field-to-mesh", get_registry())
    made = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert made.is_watertight and made.euler_number == 2
    away = mesh.vertices.norm(dim=-1)  # the soft edge is 0.02 wide and half of the light is gone before its middle
    assert 0.48 < float(away.min()) <= float(away.max()) < 0.56
    front = mesh.vertices[:, 0] > 0.3
    assert float(mesh.colors[front, 0].mean()) > 0.6 > float(mesh.colors[~front, 0].mean())  # red in front


def test_a_mesh_becomes_flat_gaussians_in_its_surface_and_colours() -> None:
    splats = convert(scene_of(Bare), "gaussians", get_registry(), MeshToSplats.Config(count=3000))
    mesh = Bare(None, Context()).mesh(0)
    assert len(splats) == 3000
    assert float(signed_distance(splats.means, mesh).abs().max()) < 1e-5
    seen = 0.5 + 0.28209479177387814 * splats.sh[:, 0]
    torch.testing.assert_close(seen, (splats.means + 1) / 2, atol=0.02, rtol=0)
    assert float(splats.scales[:, 2].max()) < 0.2 * float(splats.scales[:, 0].min())
    # Discs of one deviation cover the sphere twice.
    covered = 3000 * math.pi * float(splats.scales[0, 0]) ** 2
    assert covered == pytest.approx(2 * math.pi, rel=0.06)  # the facets cut off a twentieth


def test_quaternions_turn_up_to_the_normal() -> None:
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    normals = torch.cat([normals, torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0]])])
    w, x, y, z = turn_up(normals).unbind(-1)
    third = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
    torch.testing.assert_close(third, normals, atol=1e-5, rtol=0)


def test_distances_of_a_mesh_are_those_of_the_ball() -> None:
    grid = convert(scene_of(Bare), "sdf", get_registry(), MeshToSdf.Config(resolution=24))
    axis = torch.linspace(-1, 1, 24)
    exact = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).norm(dim=-1) - 0.5
    torch.testing.assert_close(grid.values, exact, atol=0.06, rtol=0)
    near = exact.abs() < 0.2
    assert float((grid.values - exact)[near].abs().max()) < 0.03  # the octasphere's facets


def test_uvs_lie_in_the_atlas_and_do_not_fold() -> None:
    mesh = convert(scene_of(Bare), "uv", get_registry())
    assert mesh.uv is not None and mesh.colors is not None
    assert float(mesh.uv.min()) >= 0 and float(mesh.uv.max()) <= 1
    a, b, c = (mesh.uv[mesh.faces[:, k]] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert float(area.abs().sum()) / 2 < 1  # charts do not overlap
    torch.testing.assert_close(mesh.colors, (mesh.vertices + 1) / 2, atol=0.05, rtol=0)


def test_tetrahedra_take_shape_and_colours() -> None:
    made = convert(scene_of(reference.Ball), "field-to-tetrahedra", get_registry())
    mesh = made.mesh(0)
    assert float((mesh.vertices.norm(dim=-1) - 0.5).abs().max()) < 0.01
    wanted = reference.Ball().features(mesh.vertices)
    assert float((made.features(mesh.vertices) - wanted).abs().mean().detach()) < 0.15


def test_what_a_geometry_holds() -> None:
    assert representations(Fog(None, Context())) == {"density"}
    assert representations(DottedBall(None, Context())) == {"density", "sdf", "mesh", "gaussians"}


class Cloud(Geometry):
    """Points, which no converter reads."""

    def points(self) -> Points:
        return Points(torch.rand(10, 3))


def test_the_impossible_is_one_clear_sentence() -> None:
    registry = get_registry()
    with pytest.raises(UserError, match="Cloud holds nothing that can be converted, which cannot become 'uv'"):
        convert(scene_of(Cloud), "uv", registry)
    with pytest.raises(UserError, match="Fog holds density, which cannot become 'splats-to-mesh'"):
        convert(scene_of(Fog), "splats-to-mesh", registry)
    with pytest.raises(UserError, match="no converter gives 'video'"):
        convert(scene_of(Fog), "video", registry)
    with pytest.raises(UserError, match="Did you mean 'field-to-mesh'"):
        convert(scene_of(Fog), "feild-to-mesh", registry)


class Broken(Geometry):
    """A mesh of which every face is degenerate, or with vertices that are not finite."""

    value = 0.0

    def mesh(self, resolution: int) -> Mesh:
        return Mesh(torch.full((3, 3), self.value), torch.tensor([[0, 0, 1], [1, 1, 2]]))


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_broken_meshes_are_refused(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "value", value)
    with pytest.raises(UserError, match="nothing to start from"):
        scene_mesh(scene_of(Broken))
