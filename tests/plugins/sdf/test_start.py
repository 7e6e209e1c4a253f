"""The shapes a signed distance starts from, against closed forms and brute force."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trimesh
from torch import Tensor

from core.contracts import Context
from core.errors import UserError
from core.meshing.start import ellipsoid_distance, load_mesh
from plugins.sdf.sdf import SDF

SMALL = {"levels": 3, "log2_table": 9, "finest": 16, "hidden": 8}


def build(bound: float = 1.0, **options: object) -> SDF:
    return SDF(SDF.Config(**SMALL | options), Context(bound=bound))


def cube(count: int = 400, side: float = 1.0) -> Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * side


def surface(radii: Tensor, steps: int = 1200) -> Tensor:
    """[steps^2, 3] points of an ellipsoid."""
    polar = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps * torch.pi
    around = torch.arange(steps, dtype=torch.float64) / steps * 2 * torch.pi
    p, a = torch.meshgrid(polar, around, indexing="ij")
    return (torch.stack([p.sin() * a.cos(), p.sin() * a.sin(), p.cos()], -1) * radii).view(-1, 3)


@pytest.mark.parametrize("radii", [(0.5, 0.5, 0.5), (0.2, 0.5, 0.8), (0.7, 0.1, 0.3)])
def test_distance_to_an_ellipsoid_is_that_to_its_nearest_point(radii: tuple[float, float, float]) -> None:
    points = cube(60).double()
    found = ellipsoid_distance(points, radii)
    nearest = torch.cdist(points, surface(torch.tensor(radii).double())).amin(1)
    inside = (points / torch.tensor(radii)).square().sum(-1) < 1
    assert bool(((found < 0) == inside).all()) and bool(inside.any())
    torch.testing.assert_close(found.abs(), nearest, rtol=0, atol=1e-3)
    assert float((found.abs() - nearest).max()) < 1e-9  # samples are never nearer than the nearest point


def test_distance_on_the_axes_of_an_ellipsoid() -> None:
    points = torch.tensor([[0.9, 0, 0], [0, 0.9, 0], [0, 0, -0.9], [0, 0, 0], [0, 0, 0.5]])
    found = ellipsoid_distance(points, (0.2, 0.5, 0.8))
    torch.testing.assert_close(found[:4], torch.tensor([0.7, 0.4, 0.1, -0.2]).double(), rtol=0, atol=1e-6)
    # Deep on the long axis the nearest point lies on the side: x = 0.2 s, z = 0.8 c with c = 0.8 0.5 / (0.64 - 0.04).
    c = 0.4 / 0.6
    wanted = -((0.2 * (1 - c * c) ** 0.5) ** 2 + (0.8 * c - 0.5) ** 2) ** 0.5
    assert float(found[4]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("bound", [1.0, 2.0])
def test_a_sphere_has_its_closed_form(bound: float) -> None:
    sdf = build(bound, radius=0.6)
    points = cube(side=bound)
    error = sdf.sdf(points).detach() - (points.norm(dim=-1) - 0.6)
    # Trilinear interpolation of |x| on cells of side h errs by at most h^2 / (4 |x|), h / 2 next to the centre.
    cell = 2 * bound / 64
    assert float((error.abs() * points.norm(dim=-1).clamp(min=cell)).max()) < cell**2 / 2
    far = torch.tensor([[3.0 * bound, 0.0, 0.0]])
    torch.testing.assert_close(sdf.sdf(far).detach(), torch.tensor([3.0 * bound - 0.6]), rtol=0, atol=1e-3)


def test_an_ellipsoid_has_its_sign_and_magnitude() -> None:
    sdf, points = build(start="ellipsoid", radii=(0.3, 0.5, 0.8)), cube()
    wanted = ellipsoid_distance(points, (0.3, 0.5, 0.8)).float()
    found = sdf.sdf(points).detach()
    assert float((found - wanted).abs().max()) < 0.02  # where the distance has a crease, half a cell
    assert float((found - wanted).abs().mean()) < 5e-4
    clear = wanted.abs() > 2e-3
    assert torch.equal(found[clear] < 0, wanted[clear] < 0)


def test_a_mesh_file_is_its_shape(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=3.0)
    ball.apply_translation([5, 0, 0])
    ball.export(tmp_path / "ball.ply")
    sdf, points = build(start="mesh", file=str(tmp_path / "ball.ply"), radius=0.6), cube()
    error = (sdf.sdf(points).detach() - (points.norm(dim=-1) - 0.6)).abs()
    near = (points.norm(dim=-1) - 0.6).abs() < 0.1
    assert float(error[near].max()) < 3e-3
    assert float(error.max()) < 0.1  # far off, the nearest vertex stands for the surface
    again = build(start="mesh", file=str(tmp_path / "ball.ply"), radius=0.6)
    assert torch.equal(again.base, sdf.base)


def test_files_with_y_up_are_turned(tmp_path: Path) -> None:
    trimesh.creation.box((0.2, 0.4, 1.0)).export(tmp_path / "box.obj")  # its front is on +z, its top on +y
    extent = load_mesh(str(tmp_path / "box.obj"), 0.5).vertices.abs().amax(0)
    half = (0.01 + 0.04 + 0.25) ** 0.5
    torch.testing.assert_close(extent, torch.tensor([0.5, 0.1, 0.2]) * 0.5 / half, rtol=1e-4, atol=1e-5)


def test_files_that_hold_no_mesh_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.ply").write_text("no mesh")
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    for name, words in (("missing.ply", "no file"), ("broken.ply", "cannot be read"), ("points.obj", "mesh|faces")):
        with pytest.raises(UserError, match=words):
            load_mesh(str(tmp_path / name), 0.5)
    with pytest.raises(UserError, match="geometry.file must name one"):
        build(start="mesh")
