"""The mesh renderer against closed forms: a ball's depth, normals and outline, any camera, seams, supersampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts import Background, Context, Geometry, Material, Step
from core.errors import UserError
from core.meshing.normals import vertex_normals
from core.testing import check_component
from core.testing.reference import octasphere
from core.types import Cameras, Mesh
from plugins.mesh.rasterizer import MeshRasterizer


class Fixed(Geometry):
    """A given mesh; its features are the positions."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__(None, Context())
        self.made = mesh

    def surface(self) -> Mesh:
        return self.made

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        return points


class Half(Material):
    def forward(self, features: Tensor, points: Tensor, directions: Tensor, normals: Any, light: Any = None) -> Tensor:
        return features / 2 + 0.5


class Blue(Background):
    def forward(self, directions: Tensor) -> Tensor:
        return directions.new_tensor([0.0, 0.0, 1.0]).expand_as(directions)


def renderer(mesh: Mesh, **options: Any) -> MeshRasterizer:
    parts = {"geometry": Fixed(mesh), "material": Half(None, Context()), "background": Blue(None, Context())}
    return MeshRasterizer(MeshRasterizer.Config(**options), Context(parts=parts))


def views(height: int = 40, width: int = 56, principal: tuple[float, float] | None = None) -> Cameras:
    angle = torch.tensor([0.4, 2.5])
    found = Cameras.orbit(angle, angle * 0.3, 3 + 0 * angle, 0.7 + 0 * angle, height, width)
    point = None if principal is None else torch.tensor([principal] * 2)
    return Cameras(found.c2w, found.fov_y, height, width, point)


def ball(radius: float = 0.7, levels: int = 5) -> Mesh:
    vertices, faces = octasphere(levels)
    return Mesh(vertices * radius, faces)


def test_it_keeps_its_contract() -> None:
    assert len(check_component("renderer", "mesh-rasterizer")) >= 30


@pytest.mark.parametrize("principal", [None, (20.0, 24.0)])
def test_a_ball_has_the_depth_normals_and_colours_of_a_sphere(principal: tuple[float, float] | None) -> None:
    cameras = views(principal=principal)
    seen = renderer(ball())(cameras)
    origins, directions = cameras.rays()
    middle = -(origins * directions).sum(-1)
    gap = 0.49 - (origins.square().sum(-1) - middle.square())
    assert seen.depth is not None and seen.normal is not None
    inner = gap > 0.1  # a pixel and more from the outline
    t = middle - gap.clamp(min=0).sqrt()
    points = origins + directions * t[..., None]
    forward = -cameras.c2w[:, None, None, :3, 2]
    depth = t * (directions * forward).sum(-1)
    assert float((seen.depth[..., 0] - depth)[inner].abs().max()) < 4e-3
    assert float((seen.normal - points / 0.7)[inner].abs().max()) < 0.02
    assert float((seen.rgb - (points / 2 + 0.5))[inner].abs().max()) < 4e-3
    outside = gap < -0.05
    assert bool((seen.opacity[outside] == 0).all()) and bool((seen.depth[outside] == 0).all())
    assert torch.equal(seen.rgb[outside], torch.tensor([0.0, 0, 1]).expand(int(outside.sum()), 3))
    edge = (gap.abs() < 0.03) & (seen.opacity[..., 0] > 0.01) & (seen.opacity[..., 0] < 0.99)
    assert int(edge.sum()) > 40


def test_supersampling_agrees_with_one_sample_inside_and_smooths_the_outline() -> None:
    one, many = renderer(ball())(views()), renderer(ball(), supersample=3)(views())
    assert one.depth is not None and many.depth is not None
    inner = (one.opacity[..., 0] == 1) & (many.opacity[..., 0] > 1 - 1e-6)
    assert float((one.depth - many.depth)[inner].abs().mean()) < 5e-3
    assert float((one.rgb - many.rgb)[inner].abs().mean()) < 5e-3
    assert abs(float(one.opacity.sum() / many.opacity.sum()) - 1) < 5e-3
    assert many.rgb.shape == (2, 40, 56, 3)


def test_flat_normals_are_those_of_the_faces() -> None:
    mesh = ball(levels=1)
    seen = renderer(mesh, normals="flat")(views())
    assert seen.normal is not None
    corners = mesh.vertices[mesh.faces]
    known = torch.nn.functional.normalize(
        torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=-1
    )
    inner = torch.nn.functional.max_pool2d(-seen.opacity[..., 0], 3, 1, 1) == -1
    apart = torch.cdist(seen.normal[inner], known).amin(1)
    assert float(apart.median()) < 1e-5


def test_a_seam_in_the_texture_is_no_silhouette_and_uvs_are_given() -> None:
    """Two halves whose common corners are split by their UVs: a picture of the whole shows no line."""
    y, z = torch.tensor([-0.8, 0.0, 0.0, -0.8, 0.0, 0.8, 0.8, 0.0]), torch.tensor([-0.5, -0.5, 0.5, 0.5] * 2)
    vertices = torch.stack([torch.zeros(8), y, z], -1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    uv = torch.tensor([[0.0, 0], [0.4, 0], [0.4, 1], [0, 1], [0.6, 0], [1, 0], [1, 1], [0.6, 1]])
    across = renderer(Mesh(vertices, faces, uv=uv))
    angle = torch.zeros(1)
    cameras = Cameras.orbit(angle, angle, angle + 3, angle + 0.7, 24, 33)
    seen = across(cameras)
    assert int((across._welded(across._part("geometry").made)[1] >= 0).sum()) == 6
    found = seen.extras["uv"][0, 12]
    place = (seen.rgb[0, 12, :, 1] - 0.5) * 2  # y, by the material
    hit = (seen.opacity[0, 12, :, 0] == 1) & (place.abs() > 0.01)
    wanted = torch.where(place < 0, (place + 0.8) / 2, 0.6 + place / 2)
    torch.testing.assert_close(found[hit, 0], wanted[hit], atol=2e-3, rtol=0)


def test_gradients_reach_the_vertices_by_outline_and_shading() -> None:
    vertices, faces = octasphere(2)
    vertices.requires_grad_()
    made = renderer(Mesh(vertices * 0.7, faces))
    seen = made(views(), Step(0, 1))
    (outline,) = torch.autograd.grad(seen.opacity.sum(), vertices, retain_graph=True)
    grows = (outline * vertices.detach()).sum(-1)
    assert float(grows.sum()) > 0 and int((grows.abs() > 1e-6).sum()) > 10
    assert seen.depth is not None and seen.normal is not None
    for picture in (seen.rgb, seen.depth, seen.normal):
        (grad,) = torch.autograd.grad(picture.square().sum(), vertices, retain_graph=True)
        assert bool(grad.isfinite().all()) and float(grad.abs().max()) > 0


def test_an_outline_can_be_fitted() -> None:
    """A ball grows until its outline is the larger ball's: gradients come from silhouettes alone."""
    cameras = views(32, 32)
    wanted = renderer(ball(0.8, 3))(cameras).opacity
    vertices, faces = octasphere(3)
    radius = torch.tensor(0.5, requires_grad=True)
    optimizer = torch.optim.Adam([radius], lr=0.03)
    for _ in range(30):
        loss = (renderer(Mesh(vertices * radius, faces))(cameras, Step(0, 1)).opacity - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(float(radius.detach()) - 0.8) < 0.02


def test_nothing_to_see_and_nothing_that_can_be_seen() -> None:
    nothing = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    seen = renderer(nothing)(views())
    assert float(seen.opacity.max()) == 0 and bool((seen.rgb == torch.tensor([0.0, 0, 1])).all())
    broken = ball(levels=1)
    broken.vertices[3, 1] = torch.nan
    assert bool(renderer(broken)(views()).rgb.isfinite().all())
    with pytest.raises(UserError, match="not finite at step 7"):
        renderer(broken)(views(), Step(7, 10))


def test_smooth_normals_are_the_meshs_own_where_it_has_any() -> None:
    mesh = ball(levels=2)
    mesh.normals = -vertex_normals(mesh.vertices, mesh.faces)
    seen, usual = renderer(mesh)(views()), renderer(ball(levels=2))(views())
    assert seen.normal is not None and usual.normal is not None
    torch.testing.assert_close(seen.normal, -usual.normal)
