"""Mesh tools against closed forms of a sphere and a cube, and against trimesh."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from core.errors import UserError
from core.meshing import normals
from core.meshing.compare import chamfer, f_scores, volume_iou
from core.meshing.distance import banded_distance, contains, signed_distance
from core.meshing.sampling import sample_surface
from core.meshing.splat_points import render_points
from core.testing.reference import octasphere
from core.types import Cameras, Mesh, Points


def ball(radius: float = 1.0, levels: int = 4, dtype: torch.dtype = torch.float64) -> Mesh:
    vertices, faces = octasphere(levels)
    return Mesh(vertices.to(dtype) * radius, faces)


def cube(side: float = 1.0) -> Mesh:
    box = trimesh.creation.box((side,) * 3)
    return Mesh(torch.tensor(box.vertices), torch.tensor(box.faces, dtype=torch.int64))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_points_are_spread_by_area_and_lie_on_the_faces() -> None:
    mesh = cube()
    mesh.vertices = mesh.vertices * torch.tensor([1.0, 1.0, 3.0])  # faces of 1 and of 3
    drawn = sample_surface(mesh, 14_000, seeded())
    assert drawn.normals is not None
    on = (drawn.positions.abs() - torch.tensor([0.5, 0.5, 1.5])).abs().amin(-1)
    assert float(on.max()) < 1e-12
    caps = float((drawn.normals[:, 2].abs() > 0.5).double().mean())
    assert caps == pytest.approx(2 / 14, abs=0.002)
    side = drawn.positions[drawn.normals[:, 0] > 0.5]
    assert float(side[:, 2].mean()) == pytest.approx(0.0, abs=0.05)
    assert float(side[:, 2].square().mean()) == pytest.approx(9 / 12, abs=0.04)
    assert torch.equal(drawn.positions, sample_surface(mesh, 14_000, seeded()).positions)
    assert not torch.equal(drawn.positions, sample_surface(mesh, 14_000, seeded(1)).positions)


def test_sampled_colours_come_from_vertices_or_texture() -> None:
    mesh = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]))
    mesh.colors = mesh.vertices.clone()
    drawn = sample_surface(mesh, 50, seeded())
    torch.testing.assert_close(drawn.colors, drawn.positions)
    mesh.uv = mesh.vertices[:, :2].clone()
    texture = torch.zeros(64, 64, 3)
    texture[:, :, 0] = (torch.arange(64) + 0.5) / 64  # red grows with u
    texture[:, :, 1] = 1 - (torch.arange(64)[:, None] + 0.5) / 64  # green grows with v, row 0 on top
    mesh.texture = texture
    drawn = sample_surface(mesh, 50, seeded())
    torch.testing.assert_close(drawn.colors[:, :2], drawn.positions[:, :2].clamp(0.5 / 64, 1 - 0.5 / 64))


@pytest.mark.parametrize("faces", [torch.zeros(0, 3, dtype=torch.int64), torch.tensor([[0, 0, 1]])])
def test_a_mesh_without_area_gives_no_points(faces: torch.Tensor) -> None:
    with pytest.raises(UserError, match="no points can be drawn"):
        sample_surface(Mesh(torch.rand(3, 3), faces), 10)


def test_normals_of_a_sphere_point_outwards_and_have_right_gradients() -> None:
    mesh = ball()
    torch.testing.assert_close(normals.vertex_normals(mesh.vertices, mesh.faces), mesh.vertices, atol=0.02, rtol=0)
    centres = mesh.vertices[mesh.faces].mean(1)
    assert float((normals.face_normals(mesh.vertices, mesh.faces) * centres).sum(-1).min()) > 0.9
    small = ball(1.0, 0)
    moved = (small.vertices + 0.1 * torch.rand(6, 3, generator=seeded(), dtype=torch.float64)).requires_grad_()
    torch.autograd.gradcheck(lambda v: normals.vertex_normals(v, small.faces), (moved,))
    flat = torch.zeros(3, 3, requires_grad=True)
    normals.face_normals(flat, torch.tensor([[0, 1, 2]])).sum().backward()
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())


def test_edges_of_a_closed_mesh_have_two_faces_each() -> None:
    mesh = ball(1.0, 2)
    edges, pairs = normals.edges_of(mesh.faces, len(mesh.vertices))
    assert len(mesh.vertices) - len(edges) + len(mesh.faces) == 2 and bool((pairs >= 0).all())
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    both = [set(mesh.faces[p].flatten().tolist()) for p in pairs[5]]
    assert set(edges[5].tolist()) == both[0] & both[1]
    assert int((normals.edges_of(mesh.faces[1:], len(mesh.vertices))[1] < 0).sum()) == 3


def test_signed_distance_of_a_sphere_and_its_gradient() -> None:
    at = (torch.rand(200, 3, generator=seeded(), dtype=torch.float64) * 3 - 1.5).requires_grad_()
    found = signed_distance(at, ball(0.8, 5))
    torch.testing.assert_close(found, at.norm(dim=-1) - 0.8, atol=2e-3, rtol=0)
    (slope,) = torch.autograd.grad(found.sum(), at)
    away = at.detach().norm(dim=-1) > 0.2
    cosine = (slope * torch.nn.functional.normalize(at, dim=-1)).sum(-1)
    assert float(cosine.detach()[away].min()) > 0.98  # -1 inside would be an inverted field
    mesh = ball(0.8, 1)
    mesh.vertices.requires_grad_()
    few = at.detach()[:20]
    (moved,) = torch.autograd.grad(signed_distance(few, mesh).sum(), mesh.vertices)
    bumped = Mesh(mesh.vertices.detach() + 1e-6 * torch.ones(3), mesh.faces)
    expected = (signed_distance(few, bumped).sum() - signed_distance(few, mesh).sum().detach()) / 1e-6
    assert float(moved.sum()) == pytest.approx(float(expected), abs=1e-4)


def test_banded_distance_is_exact_near_and_right_in_sign_far() -> None:
    mesh = ball(0.6, 4, torch.float32)
    at = torch.rand(3000, 3, generator=seeded()) * 2 - 1
    band, exact = banded_distance(at, mesh, 0.1), signed_distance(at, mesh)
    near = exact.abs() < 0.1
    torch.testing.assert_close(band[near], exact[near], atol=1e-6, rtol=0)
    assert torch.equal(band < 0, exact < 0)
    assert float((band - exact).abs().max()) < 0.06


def test_points_inside_a_torus_are_found_and_holes_do_not_matter() -> None:
    torus = trimesh.creation.torus(0.6, 0.25, 32, 16)
    mesh = Mesh(torch.tensor(torus.vertices), torch.tensor(torus.faces, dtype=torch.int64))
    at = torch.rand(500, 3, generator=seeded(), dtype=torch.float64) * 2 - 1
    tube = torch.hypot(at[:, :2].norm(dim=-1) - 0.6, at[:, 2])
    at, tube = at[(tube - 0.25).abs() > 0.02], tube[(tube - 0.25).abs() > 0.02]  # what the facets cut off
    exact = tube < 0.25
    assert torch.equal(contains(at, mesh), exact)
    punctured = Mesh(mesh.vertices, mesh.faces[7:])
    assert float((contains(at, punctured) == exact).double().mean()) > 0.99


def test_chamfer_and_f_score_of_shifted_points() -> None:
    grid = torch.stack(torch.meshgrid(*[torch.arange(5.0)] * 3, indexing="ij"), -1).reshape(-1, 3).double()
    shifted = grid + torch.tensor([0.1, 0.0, 0.0])
    assert float(chamfer(grid, shifted)) == pytest.approx(0.1)
    assert float(chamfer(grid, shifted, squared=True)) == pytest.approx(0.01)
    assert f_scores(shifted, grid, [0.05, 0.11]) == [0.0, 1.0]
    half = grid[grid[:, 0] < 2]  # all found, two fifths of the truth
    assert f_scores(half, grid, [0.5]) == [pytest.approx(2 * 0.4 / 1.4)]
    a, b = (torch.rand(n, 3, generator=seeded(n), dtype=torch.float64).requires_grad_() for n in (7, 9))
    torch.autograd.gradcheck(chamfer, (a, b))
    with pytest.raises(UserError, match="second set of points is empty"):
        chamfer(grid, grid[:0])
    with pytest.raises(UserError, match="not finite"):
        chamfer(grid * float("nan"), grid)


def test_chamfer_of_concentric_spheres_is_the_gap() -> None:
    a, b = (sample_surface(ball(r, 4), 20_000, seeded()).positions for r in (0.5, 0.55))
    assert float(chamfer(a, b)) == pytest.approx(0.05, abs=1e-3)


def test_iou_of_nested_and_shifted_solids() -> None:
    assert volume_iou(ball(0.5), ball(1.0), 48) == pytest.approx(1 / 8, abs=0.01)
    moved = cube()
    moved.vertices = moved.vertices + torch.tensor([0.25, 0.0, 0.0])
    assert volume_iou(cube(), moved, 40) == pytest.approx(0.75 / 1.25, abs=0.01)
    assert volume_iou(cube(), cube(), 16) == 1.0


def test_pictures_of_points_show_the_nearest_in_the_right_place() -> None:
    angle = torch.tensor([0.0, math.pi / 2])
    cameras = Cameras.orbit(angle, angle * 0, angle * 0 + 3, angle * 0 + math.radians(40), 40, 60)
    shown = Points(torch.tensor([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.4, 0.4]]), colors=torch.eye(3))
    render = render_points(shown, cameras, radius=0.03)
    assert render.depth is not None
    first = render.rgb[0].reshape(-1, 3)
    assert bool((first == torch.tensor([1.0, 0, 0])).all(-1).any())
    assert not bool((first == torch.tensor([0.0, 1, 0])).all(-1).any())  # hidden behind the first
    assert float(render.depth[0, 20, 30]) == pytest.approx(2.5)
    blue = (render.rgb[0] == torch.tensor([0.0, 0, 1])).all(-1).nonzero().double().mean(0) + 0.5
    xy, _ = cameras.project(shown.positions[2:])
    np.testing.assert_allclose(blue.flip(0).numpy(), xy[0, 0].numpy(), atol=0.5)
    assert float(render.depth[1][render.opacity[1] > 0].min()) == pytest.approx(2.6)
    nothing = render_points(Points(torch.zeros(0, 3)), cameras)
    assert float(nothing.opacity.sum()) == 0 and float(nothing.rgb.mean()) == 0.5
    with pytest.raises(UserError, match="not finite"):
        render_points(Points(torch.full((1, 3), math.nan)), cameras)
