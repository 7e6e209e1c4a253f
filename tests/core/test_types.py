"""Cameras against the conventions as they are written, rays against the pinhole model, conditions and meshes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.types import Cameras, Condition, Mesh

HALF = math.pi / 2


def orbit(azimuth: list[float], elevation: list[float], distance: float = 3.0, fov: float = 0.7, **kw: int) -> Cameras:
    a, e = (torch.tensor(x, dtype=torch.float64) for x in (azimuth, elevation))
    size = {"height": 8, "width": 8} | kw
    return Cameras.orbit(a, e, torch.full_like(a, distance), torch.full_like(a, fov), **size)


def close(found: Tensor, wanted: Tensor | list[float] | list[list[float]], tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "position", "right"),
    [
        (0.0, 0.0, [3, 0, 0], [0, 1, 0]),  # in front: the object's left (+y) is at the right of the picture
        (HALF, 0.0, [0, 3, 0], [-1, 0, 0]),
        (math.pi, 0.0, [-3, 0, 0], [0, -1, 0]),
        (-HALF, 0.0, [0, -3, 0], [1, 0, 0]),
        (0.0, HALF, [0, 0, 3], [0, 1, 0]),
        (HALF, -HALF, [0, 0, -3], [-1, 0, 0]),
    ],
)
def test_where_a_camera_stands_and_what_is_on_its_right(
    azimuth: float, elevation: float, position: list[float], right: list[float]
) -> None:
    camera = orbit([azimuth], [elevation])
    close(camera.position, [position])
    close(camera.c2w[:, :3, 0], [right])
    close(camera.c2w[0, 3], [0.0, 0.0, 0.0, 1.0])


def test_axes_are_a_rotation_that_looks_at_the_origin_upright() -> None:
    generator = torch.Generator().manual_seed(0)
    a = (torch.rand(50, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    e = (torch.rand(50, generator=generator, dtype=torch.float64) * 2 - 1) * HALF
    cameras = orbit(a.tolist(), e.tolist())
    rotation = cameras.c2w[:, :3, :3]
    close(rotation.mT @ rotation, torch.eye(3).expand(50, 3, 3))
    close(torch.linalg.det(rotation), torch.ones(50))
    close(-rotation[:, :, 2] * 3.0, -cameras.position)  # they look along -z, at the origin
    assert bool((rotation[:, 2, 1] >= 0).all())  # and the world's up is up in the picture
    close(rotation[:, 2, 0], torch.zeros(50))  # without roll


def test_angles_come_back_from_the_pose_at_the_poles_too() -> None:
    azimuth = [0.3, -3.0, 3.1, math.pi, 0.7, -2.2]
    elevation = [0.0, 1.2, -1.5, 0.4, HALF, -HALF]
    cameras = orbit(azimuth, elevation, distance=2.5)
    close(cameras.azimuth, azimuth)
    close(cameras.elevation, elevation, 1e-7)  # asin is steep there
    close(cameras.distance, [2.5] * 6)
    close(orbit([0.3 + 2 * math.pi], [0.0]).azimuth, [0.3])


def test_angles_are_of_the_viewing_direction_when_the_target_is_not_the_origin() -> None:
    a, e, one = torch.tensor([0.4, 2.0]), torch.tensor([0.2, -0.3]), torch.ones(2)
    centers = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 0.5]])
    cameras = Cameras.orbit(a, e, 3 * one, one, 4, 4, center=centers)
    close(cameras.azimuth, a, 1e-6)
    close(cameras.elevation, e, 1e-6)
    close(cameras.position - cameras.c2w[:, :3, 2] * 3, centers, 1e-6)
    moved = Cameras.orbit(a, e, 3 * one, one, 4, 4, center=torch.tensor([0.0, 0.0, 1.0]))
    close(moved.position - Cameras.orbit(a, e, 3 * one, one, 4, 4).position, [[0.0, 0.0, 1.0]] * 2, 1e-6)


def test_rays_invert_the_pinhole_projection() -> None:
    """A point on the ray of pixel (i, j) projects to (j + 1/2, i + 1/2), for a picture that is not square."""
    cameras = orbit([0.5, -2.0], [0.3, 1.1], fov=0.9, height=6, width=10)
    origins, directions = cameras.rays()
    assert origins.shape == directions.shape == (2, 6, 10, 3)
    close(directions.norm(dim=-1), torch.ones(2, 6, 10))
    close(origins[:, 2, 3], cameras.position)
    points = torch.cat([origins + 2.7 * directions, torch.ones(2, 6, 10, 1, dtype=torch.float64)], -1)
    local = torch.einsum("bij,bhwj->bhwi", torch.linalg.inv(cameras.c2w), points)
    focal = 6 / 2 / math.tan(0.45)
    u = 5 + focal * local[..., 0] / -local[..., 2]
    v = 3 - focal * local[..., 1] / -local[..., 2]
    close(u, (torch.arange(10) + 0.5).expand(2, 6, 10), 1e-9)
    close(v, (torch.arange(6) + 0.5)[:, None].expand(2, 6, 10), 1e-9)


def test_the_field_of_view_is_vertical_and_row_0_is_at_the_top() -> None:
    _, directions = orbit([0.0], [0.0], fov=HALF, height=2, width=6).rays()
    close(directions[0, :, 0, 2] / -directions[0, :, 0, 0], [0.5, -0.5])  # tan(45 deg) times half
    close(directions[0, 0, :, 1] / -directions[0, 0, :, 0], [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    wide = orbit([0.0], [0.0], fov=HALF, height=2, width=600).rays()[1]
    close(wide[0, :, 300, 2] / -wide[0, :, 300, 0], [0.5, -0.5])  # the width does not change it


def test_parts_of_a_batch_and_other_resolutions() -> None:
    cameras = orbit([0.0, 1.0, 2.0], [0.0, 0.1, 0.2])
    assert len(cameras) == 3 and len(cameras[1:]) == 2
    close(cameras[torch.tensor([2, 0])].azimuth, [2.0, 0.0])
    close(cameras[1:].fov_y, [0.7, 0.7])
    larger = cameras.resized(16, 32)
    assert (larger.height, larger.width, larger.c2w is cameras.c2w) == (16, 32, True)
    assert cameras.to("cpu").c2w.dtype == torch.float64
    # The corners of the picture look the same way at any resolution of the same shape.
    low, high = (c.rays()[1].mean((1, 2)) for c in (cameras, cameras.resized(32, 32)))
    close(low / low.norm(dim=-1, keepdim=True), high / high.norm(dim=-1, keepdim=True))


def test_conditions_are_stacked_field_by_field() -> None:
    def row(k: float) -> Condition:
        tensors = {"text": torch.full((1, 2, 3), k), "camera": torch.full((1, 4), -k)}
        return Condition(**tensors, extras={"size": torch.full((1,), 10 * k)})

    both = Condition.cat([row(1), row(2), row(3)])
    assert both.pooled is None and both.image is None
    assert both.text is not None and both.camera is not None
    assert both.text.shape == (3, 2, 3) and both.text[:, 0, 0].tolist() == [1, 2, 3]
    assert both.camera[:, 0].tolist() == [-1, -2, -3]
    assert both.extras["size"].tolist() == [10, 20, 30]
    with pytest.raises((TypeError, KeyError)):
        Condition.cat([row(1), Condition(text=torch.zeros(1, 2, 3))])


def test_a_mesh_shows_what_it_holds_not_its_numbers() -> None:
    mesh = Mesh(torch.zeros(4, 3), torch.zeros(2, 3, dtype=torch.int64), uv=torch.zeros(4, 2))
    assert repr(mesh) == "Mesh(vertices[4, 3], faces[2, 3], uv[4, 2])"


def test_rays_pass_through_the_pixels_that_project_gives() -> None:
    cameras = Cameras.orbit(*torch.tensor([[0.3, 2.0], [0.2, -0.5], [3.0, 2.5], [0.7, 0.9]]).double(), 5, 8)
    principal = torch.tensor([[3.0, 2.5], [5.5, 1.0]]).double()
    for view in (cameras, replace(cameras, principal=principal), replace(cameras, principal=principal).resized(10, 16)):
        origins, directions = view.rays()
        for b in range(2):
            xy, depth = view.project((origins + 2.3 * directions)[b].reshape(-1, 3))
            ys, xs = torch.meshgrid(torch.arange(view.height), torch.arange(view.width), indexing="ij")
            wanted = torch.stack([xs, ys], -1).view(-1, 2) + 0.5
            assert torch.allclose(xy[b], wanted.double(), atol=1e-9)
            assert (depth[b] > 0).all()


def test_world_to_camera_is_the_inverse() -> None:
    cameras = Cameras.orbit(*torch.rand(4, 3, generator=torch.Generator().manual_seed(1)).double() + 0.1, 4, 4)
    eye = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    assert torch.allclose(cameras.world_to_camera @ cameras.c2w, eye, atol=1e-12)


def test_a_turntable_is_an_orbit_at_one_height() -> None:
    azimuth = torch.tensor([0.0, 1.0, 4.0])
    found = Cameras.turntable(azimuth, 0.3, 16)
    full = torch.ones(3)
    wanted = Cameras.orbit(azimuth, 0.3 * full, 3.0 * full, math.radians(40) * full, 16, 16)
    assert torch.equal(found.c2w, wanted.c2w) and torch.allclose(found.fov_y, wanted.fov_y, atol=1e-6)


def test_cameras_of_several_batches_become_one() -> None:
    one, two = (Cameras.turntable(torch.arange(n) * 0.5, 0.2, 16) for n in (2, 3))
    both = Cameras.cat([one, two])
    assert len(both) == 5 and torch.equal(both.c2w[2:], two.c2w) and both.principal is None
    from dataclasses import replace

    shifted = replace(two, principal=torch.full((3, 2), 5.0))
    mixed = Cameras.cat([one, shifted])
    assert mixed.principal is not None and torch.equal(mixed.principal[:2], one.center)
    assert torch.equal(mixed.principal[2:], torch.full((3, 2), 5.0))
    with pytest.raises(ValueError, match="several sizes"):
        Cameras.cat([one, two.resized(8, 8)])
