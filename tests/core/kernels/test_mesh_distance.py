"""Closest faces and winding numbers: every backend against closed forms, each other and trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch
from core.kernels.mesh_distance import closest_face, winding_number
from core.testing.reference import octasphere

BACKENDS = [b.name for b in dispatch.backends("mesh_distance") if b.runs_on("cpu") and b.available()[0]]


def cube() -> tuple[Tensor, Tensor]:
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    return torch.tensor(box.vertices), torch.tensor(box.faces, dtype=torch.int64)


def points(count: int = 400, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(3), dtype=dtype) * 3 - 1.5


def nearest(at: Tensor, vertices: Tensor, faces: Tensor, backend: str) -> Tensor:
    face, bary = closest_face(at, vertices, faces, backend)
    assert bool((bary >= 0).all()) and torch.allclose(bary.sum(1), torch.ones_like(bary[:, 0]))
    return (vertices.to(bary)[faces[face]] * bary[..., None]).sum(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_distance_to_a_cube_is_that_of_its_closed_form(backend: str) -> None:
    at = points()
    over = at.abs() - 0.5
    exact = over.clamp(min=0).norm(dim=-1) + over.amax(-1).clamp(max=0)
    away = (at - nearest(at, *cube(), backend)).norm(dim=-1)
    torch.testing.assert_close(away, exact.abs(), atol=1e-12, rtol=0)
    wound = winding_number(at, *cube(), backend)
    assert torch.equal(wound > 0.5, exact < 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearest_points_are_those_of_trimesh(backend: str) -> None:
    vertices, faces = octasphere(2)
    vertices = vertices.double() * torch.tensor([1.0, 0.6, 0.3])
    at = points(300)
    corners = vertices[faces].numpy()
    pairs = trimesh.triangles.closest_point(np.tile(corners, (len(at), 1, 1)), np.repeat(at.numpy(), len(faces), 0))
    away = np.linalg.norm(pairs.reshape(len(at), len(faces), 3) - at.numpy()[:, None], axis=2).min(1)
    mine = (at - nearest(at, vertices, faces, backend)).norm(dim=-1)
    torch.testing.assert_close(mine, torch.from_numpy(away), atol=1e-9, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_winding_counts_turns_and_its_sign_follows_the_orientation(backend: str) -> None:
    vertices, faces = octasphere(4)
    at = points(500, torch.float32)
    at = at[(at.norm(dim=-1) - 1).abs() > 0.02]
    inside = (at.norm(dim=-1) < 1).float()
    torch.testing.assert_close(winding_number(at, vertices, faces, backend), inside, atol=0.04, rtol=0)
    torch.testing.assert_close(winding_number(at, vertices, faces.flip(1), backend), -inside, atol=0.04, rtol=0)
    twice = torch.cat([faces, faces])
    torch.testing.assert_close(winding_number(at, vertices, twice, backend), 2 * inside, atol=0.08, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_faces_count_as_segments_and_points(backend: str) -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]])
    faces = torch.tensor([[0, 1, 2], [3, 3, 3]])
    at = torch.tensor([[1.5, 1.0, 0.0], [5.0, 5.0, 7.0], [-1.0, 0.0, 0.0]])
    away = (at - nearest(at, vertices, faces, backend)).norm(dim=-1)
    torch.testing.assert_close(away, torch.tensor([1.0, 2.0, 1.0]))
    assert bool(torch.isfinite(winding_number(at, vertices, faces, backend)).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_points_and_a_single_face(backend: str) -> None:
    vertices, faces = torch.eye(3), torch.tensor([[0, 1, 2]])
    face, bary = closest_face(torch.zeros(0, 3), vertices, faces, backend)
    assert face.shape == (0,) and bary.shape == (0, 3)
    assert winding_number(torch.zeros(0, 3), vertices, faces, backend).shape == (0,)
    # An eighth of all directions leaves the origin through the octant's face.
    torch.testing.assert_close(winding_number(torch.zeros(1, 3), vertices, faces, backend), torch.tensor([0.125]))


@pytest.mark.parametrize("seed", range(3))
def test_backends_agree_on_soups_of_triangles(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    faces = torch.randint(60, (97, 3), generator=generator)
    at = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    away = [(at - nearest(at, vertices, faces, name)).norm(dim=-1) for name in BACKENDS]
    wound = [winding_number(at, vertices, faces, name) for name in BACKENDS]
    for other in away[1:]:
        torch.testing.assert_close(other, away[0], atol=1e-9, rtol=0)
    for other in wound[1:]:
        torch.testing.assert_close(other, wound[0], atol=0.05, rtol=0)


def test_mistakes_are_named() -> None:
    vertices, faces = cube()
    with pytest.raises(UserError, match="no faces"):
        closest_face(points(2), vertices, faces[:0])
    with pytest.raises(UserError, match="finite"):
        closest_face(points(2), vertices * float("nan"), faces)
    with pytest.raises(UserError, match="the mesh has 4"):
        winding_number(points(2), vertices[:4], faces)
    with pytest.raises(UserError, match=r"points must be \[N, 3\]"):
        closest_face(points(2)[:, :2], vertices, faces)
