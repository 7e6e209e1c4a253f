"""The mesh rasteriser: closed forms, float64, finite differences, every backend against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch
from core.kernels.mesh_raster import Fragments, antialias, homogeneous, interpolate, neighbours, rasterise
from core.testing.reference import octasphere
from core.types import Cameras

BACKENDS = [b.name for b in dispatch.backends("mesh_raster") if b.runs_on("cpu") and b.available()[0]]
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def cameras(height: int = 30, width: int = 44, principal: tuple[float, float] | None = None, count: int = 2) -> Cameras:
    angle = torch.linspace(0.3, 2.0, count, dtype=torch.float64)
    point = None if principal is None else torch.tensor(principal, dtype=torch.float64).expand(count, 2)
    views = Cameras.orbit(angle, angle * 0.3, 3 + 0 * angle, 0.8 + 0 * angle, height, width)
    return Cameras(views.c2w, views.fov_y, height, width, point)


def soup(faces: int, seed: int = 0, height: int = 24, width: int = 37, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Random homogeneous pixels [B, V, 3] and faces that share vertices, some beyond the picture's border."""
    random = torch.Generator().manual_seed(seed)
    count = max(3, faces // 2 + 3)
    xy = torch.rand(batch, count, 2, generator=random, dtype=torch.float64) * 1.4 - 0.2
    w = torch.rand(batch, count, 1, generator=random, dtype=torch.float64) * 3 + 0.5
    size = torch.tensor([width, height], dtype=torch.float64)
    return torch.cat([xy * size * w, w], -1), torch.randint(count, (faces, 3), generator=random)


def ball(levels: int, radius: Tensor, views: Cameras) -> tuple[Tensor, Tensor]:
    """(homogeneous pixels, faces) of a ball round the origin."""
    vertices, faces = octasphere(levels)
    return homogeneous(views, vertices.to(radius) * radius), faces


def opacity(points: Tensor, faces: Tensor, height: int, width: int, backend: str) -> Tensor:
    seen = rasterise(points, faces, height, width, backend=backend)
    return antialias((seen.face >= 0).to(points)[..., None], seen, points, faces, backend=backend)[..., 0]


def test_homogeneous_pixels_are_those_of_the_cameras() -> None:
    views = cameras(principal=(10.0, 20.0))
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.5
    found = homogeneous(views, points)
    pixels, depth = views.project(points)
    torch.testing.assert_close(found[..., :2] / found[..., 2:], pixels)
    torch.testing.assert_close(found[..., 2], depth)


@every_backend
@pytest.mark.parametrize("principal", [None, (12.0, 21.0)])
def test_a_slanted_square_lies_on_the_pixels_own_rays(backend: str, principal: tuple[float, float] | None) -> None:
    """Interpolated positions are perspective-correct: each is where the ray meets the plane; depth is along the axis."""
    views = cameras(principal=principal)
    corners = torch.tensor([[-0.8, -0.8, 0.1], [0.8, -0.8, 0], [0.8, 0.8, 0], [-0.8, 0.8, 0.1]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    seen = rasterise(homogeneous(views, corners), faces, views.height, views.width, backend=backend)
    found = interpolate(corners, faces, seen, backend)
    origins, directions = views.rays()
    hit = seen.face >= 0
    assert 0.1 < float(hit.double().mean()) < 0.9
    normal = torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0])
    t = ((corners[0] - origins) @ normal) / (directions @ normal)
    torch.testing.assert_close(found[hit], (origins + directions * t[..., None])[hit], atol=1e-9, rtol=0)
    torch.testing.assert_close(seen.depth[hit], views.project(found[hit])[1][0 if len(views) == 1 else slice(None)]
                               .gather(0, hit.nonzero()[:, 0][None])[0], atol=1e-9, rtol=0)  # fmt: skip
    torch.testing.assert_close(seen.bary.sum(-1), hit.double())
    assert bool((found[~hit] == 0).all()) and bool((seen.depth[~hit] == 0).all())


@every_backend
def test_the_nearer_face_wins_the_first_of_equals_and_both_sides_are_seen(backend: str) -> None:
    flat = torch.tensor([[0.0, 0, 1], [8, 0, 1], [0, 8, 1]])
    points = torch.cat([flat * 2, flat, flat])[None]
    faces = torch.tensor([[0, 1, 2], [3, 5, 4], [6, 7, 8]])
    assert rasterise(points, faces, 4, 4, backend=backend).face.unique().tolist() == [1]
    assert rasterise(points, faces[[0, 2, 1]], 4, 4, backend=backend).face.unique().tolist() == [1]


@every_backend
@pytest.mark.parametrize(("height", "width", "faces", "batch"), [
    (1, 1, 5, 1), (7, 1, 3, 2), (1, 33, 20, 1), (24, 37, 60, 3), (50, 16, 1, 1), (33, 65, 400, 1),
])  # fmt: skip
def test_fuzzed_shapes_agree_with_the_float64_reference(
    backend: str, height: int, width: int, faces: int, batch: int
) -> None:
    points, triangles = soup(faces, faces, height, width, batch)
    values = torch.rand(points.shape[1], 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    truth = rasterise(points, triangles, height, width, backend="reference")
    wanted = interpolate(values, triangles, truth, "reference")
    found = rasterise(points, triangles, height, width, backend=backend)
    assert torch.equal(found.face, truth.face)
    single = rasterise(points.float(), triangles, height, width, backend=backend)
    same = single.face == truth.face
    assert float(same.double().mean()) > 0.99
    coarse = interpolate(values.float(), triangles, single, backend).double()
    assert single.depth.dtype == torch.float32
    torch.testing.assert_close(coarse[same], wanted[same], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(single.depth.double()[same], truth.depth[same], atol=2e-3, rtol=2e-3)
    across = neighbours(triangles)
    smooth = antialias(wanted, truth, points, triangles, across, backend="reference")
    torch.testing.assert_close(antialias(wanted, found, points, triangles, across, backend=backend), smooth)


@every_backend
def test_neighbouring_faces_leave_no_gap_and_overlap_nowhere(backend: str) -> None:
    vertices, faces = octasphere(3)
    points = torch.cat([vertices[:, :2] * 14 + 16, torch.ones_like(vertices[:, :1])], -1)[None].double()
    front = faces[torch.linalg.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]],
                                     vertices[faces[:, 2]] - vertices[faces[:, 0]])[:, 2] > 0]  # fmt: skip
    seen = rasterise(points, front, 32, 32, backend=backend)
    centre = torch.arange(32).double() + 0.5 - 16
    inside = (centre[:, None].square() + centre.square()).sqrt() < 13.6
    assert bool((seen.face[0][inside] >= 0).all())
    mirrored = rasterise(points, front.flip(0), 32, 32, backend=backend)
    assert torch.equal(len(front) - 1 - mirrored.face[seen.face >= 0], seen.face[seen.face >= 0])


@every_backend
def test_gradients_of_weights_depth_and_values_are_the_finite_differences(backend: str) -> None:
    points, faces = soup(12, 3, 9, 11, 2)
    values = torch.rand(points.shape[1], 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    each = values.expand(2, -1, -1).clone()

    def run(p: Tensor, shared: Tensor, own: Tensor) -> tuple[Tensor, ...]:
        seen = rasterise(p, faces, 9, 11, backend=backend)
        return seen.bary, seen.depth, interpolate(shared, faces, seen, backend), interpolate(own, faces, seen, backend)

    inputs = (points.requires_grad_(), values.requires_grad_(), each.requires_grad_())
    assert torch.autograd.gradcheck(run, inputs, eps=1e-7, atol=1e-4)


@every_backend
def test_gradients_at_silhouettes_are_the_finite_differences(backend: str) -> None:
    """Of the whole: visibility, weights, antialiasing, with a shape that hides part of another."""
    views = cameras(13, 17, (8.13, 6.21))  # no corner exactly on a row or a column of pixel centres
    vertices, faces = octasphere(1)
    shifted = torch.cat([vertices * 0.6, vertices * 0.35 + torch.tensor([0.6, 0.5, 0.2])]).double()
    both = torch.cat([faces, faces + len(vertices)])
    colours = torch.rand(len(shifted), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    across = neighbours(both)

    def run(v: Tensor, c: Tensor) -> Tensor:
        points = homogeneous(views, v)
        seen = rasterise(points, both, 13, 17, backend=backend)
        return antialias(interpolate(c, both, seen, backend), seen, points, both, across, backend=backend)

    shifted.requires_grad_(), colours.requires_grad_()
    out = run(shifted, colours)
    random = torch.Generator().manual_seed(11)
    for _ in range(6):
        mix = torch.randn(out.shape, generator=random, dtype=torch.float64)
        way = [torch.randn(x.shape, generator=random, dtype=torch.float64) for x in (shifted, colours)]
        grads = torch.autograd.grad((out * mix).sum(), (shifted, colours), retain_graph=True)
        found = sum(float((g * w).sum()) for g, w in zip(grads, way, strict=True))
        with torch.no_grad():
            after, before = (run(shifted + e * way[0], colours + e * way[1]) for e in (1e-7, -1e-7))
        assert found == pytest.approx(float(((after - before) * mix).sum() / 2e-7), rel=1e-4)


@every_backend
@pytest.mark.parametrize("right", [4.0, 4.2, 4.49, 4.51, 4.9, 5.0])
def test_the_coverage_of_an_upright_edge_is_exact(backend: str, right: float) -> None:
    """A rectangle from x = 1.3 to ``right``: each of its rows covers exactly its width, however the edges lie."""
    x, y = torch.tensor([1.3, right, right, 1.3]), torch.tensor([1.0, 1.0, 7.0, 7.0])
    points = (torch.stack([x, y, torch.ones(4)], -1) * 2.0)[None].double().requires_grad_()
    rows = opacity(points, torch.tensor([[0, 1, 2], [0, 2, 3]]), 8, 8, backend)[0].sum(1)
    torch.testing.assert_close(rows[1:7], torch.full((6,), right - 1.3, dtype=torch.float64), atol=1e-6, rtol=0)
    (grad,) = torch.autograd.grad(rows[3], points)
    assert float(grad[0, [1, 2], 0].sum()) == pytest.approx(0.5, abs=1e-6)  # a pixel to the right is two units of x w


@every_backend
def test_faces_smaller_than_a_pixel_have_silhouettes_too(backend: str) -> None:
    """The area of a fine ball's picture, and its derivative in the radius, are those of the circle that it projects to."""
    views = cameras(28, 28, count=1)
    radius = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    points, faces = ball(5, radius, views)
    area = opacity(points, faces, 28, 28, backend).sum()
    (slope,) = torch.autograd.grad(area, radius)
    focal = float(views.focal[0])
    square = 0.7**2
    wanted = math.pi * focal**2 * square / (9 - square)  # the cone round a ball at distance 3
    derivative = math.pi * focal**2 * 2 * 0.7 * 9 / (9 - square) ** 2
    assert float(area.detach()) == pytest.approx(wanted, rel=0.01)
    assert float(slope) == pytest.approx(derivative, rel=0.1)


@every_backend
def test_inner_edges_are_no_silhouettes_and_blending_is_convex(backend: str) -> None:
    views = cameras(28, 36)
    points, faces = ball(2, torch.tensor(0.8, dtype=torch.float64), views)
    seen = rasterise(points, faces, 28, 36, backend=backend)
    noise = torch.rand(2, 28, 36, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    smooth = antialias(noise, seen, points, faces, backend=backend)
    changed = (smooth != noise).any(-1)
    hit = seen.face >= 0
    border = torch.nn.functional.max_pool2d(hit.double(), 3, 1, 1) != -torch.nn.functional.max_pool2d(
        -hit.double(), 3, 1, 1
    )
    assert int(changed.sum()) > 40 and not bool((changed & ~border).any())
    assert float(smooth.min()) >= 0 and float(smooth.max()) <= 1


@every_backend
def test_a_plane_is_cut_at_the_near_plane(backend: str) -> None:
    """A floor that passes under the camera and far behind it, in two faces: every pixel below the horizon sees it."""
    eye = torch.eye(4, dtype=torch.float64)
    eye[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # looks along +y, z up
    eye[2, 3] = 0.5
    views = Cameras(eye[None], torch.tensor([1.2], dtype=torch.float64), 20, 26)
    floor = torch.tensor([[-900.0, -900, 0], [900, -900, 0], [900, 900, 0], [-900, 900, 0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    points = homogeneous(views, floor).requires_grad_()
    seen = rasterise(points, faces, 20, 26, near=1.0, backend=backend)
    _, directions = views.rays()
    ray = directions[0] / directions[0][..., 1:2]
    depth = torch.where(ray[..., 2] < 0, -0.5 / ray[..., 2], 0)
    wanted = torch.where(depth >= 1.0, depth, 0)
    assert bool((wanted == 0)[-1].all()) and bool((wanted > 0)[11].all())
    torch.testing.assert_close(seen.depth[0].detach(), wanted, atol=1e-6, rtol=1e-6)
    picture = antialias(seen.bary, seen, points, faces, near=1.0, backend=backend)
    (grad,) = torch.autograd.grad(picture.sum() + seen.depth.sum(), points)
    assert bool(grad.isfinite().all())


@every_backend
@pytest.mark.parametrize("case", ["no faces", "no vertices", "no area", "not finite", "behind", "edge-on", "no pictures"])
def test_empty_and_degenerate_input_gives_an_empty_picture_and_no_nan(backend: str, case: str) -> None:
    faces = torch.tensor([[0, 1, 2]])
    corners = torch.tensor([[1.0, 1, 1], [6, 1, 1], [1, 6, 1]]).repeat(2, 1, 1)
    if case == "no faces":
        faces = faces[:0]
    elif case == "no vertices":
        corners, faces = corners[:, :0], faces[:0]
    elif case == "no area":
        faces = torch.tensor([[0, 0, 0], [0, 1, 1]])
    elif case == "not finite":
        corners[0, 1, 0], corners[1, 2, 2] = math.nan, math.inf
    elif case == "behind":
        corners = -corners
    elif case == "edge-on":
        corners = torch.tensor([[2.5, 1, 1], [2.5, 7, 1], [7.5, 12, 3]]).repeat(2, 1, 1)
    elif case == "no pictures":
        corners = corners[:0]
    corners.requires_grad_()
    seen: Fragments = rasterise(corners, faces, 8, 8, backend=backend)
    assert bool((seen.face == -1).all()) and seen.face.shape == (len(corners), 8, 8)
    values = interpolate(torch.ones(corners.shape[1], 2), faces, seen, backend)
    picture = antialias(torch.cat([values, seen.bary], -1), seen, corners, faces, backend=backend)
    assert picture.shape[-1] == 5 and bool((picture == 0).all()) and bool((seen.depth == 0).all())
    if picture.requires_grad:
        (grad,) = torch.autograd.grad(picture.sum() + seen.depth.sum(), corners, allow_unused=True)
        assert grad is None or bool(grad.isfinite().all() if case != "not finite" else (grad == 0).all())


@every_backend
def test_bits_do_not_depend_on_the_run_or_the_number_of_threads(backend: str) -> None:
    points, faces = soup(40)
    points = points.float().requires_grad_()
    values = torch.rand(points.shape[1], 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            seen = rasterise(points, faces, 24, 37, backend=backend)
            smooth = antialias(interpolate(values, faces, seen, backend), seen, points, faces, backend=backend)
            loss = smooth.square().sum() + seen.depth.sum()
            results.append([smooth.detach(), *torch.autograd.grad(loss, (points, values))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_neighbours_know_borders_and_crowded_edges() -> None:
    assert neighbours(torch.tensor([[0, 1, 2], [2, 1, 3]])).tolist() == [[-1, 1, -1], [0, -1, -1]]
    assert neighbours(torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])).tolist() == [[-1] * 3] * 3
    _, faces = octasphere(2)
    across = neighbours(faces)
    assert int((across < 0).sum()) == 0
    back = across[across].reshape(len(faces), -1)
    assert bool((back == torch.arange(len(faces))[:, None]).any(1).all())
    assert neighbours(faces[:0]).shape == (0, 3)


def test_shapes_that_do_not_fit_are_named() -> None:
    points, faces = soup(3)
    for wrong, match in (((points[0], faces), "vertices must be"), ((points, faces.int()), "int64"),
                         ((points, faces + 100), "names a vertex")):  # fmt: skip
        with pytest.raises(UserError, match=match):
            rasterise(*wrong, 4, 4)
    with pytest.raises(UserError, match="must be positive"):
        rasterise(points, faces, 0, 4)
    seen = rasterise(points, faces, 4, 4)
    with pytest.raises(UserError, match="values must be"):
        interpolate(points[:1].repeat(3, 1, 1), faces, seen)
    with pytest.raises(UserError, match="do not fit"):
        antialias(torch.zeros(2, 4, 5, 1), seen, points, faces)


def test_a_backend_with_another_licence_is_never_chosen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {b.name: b for b in dispatch.backends("mesh_raster")}
    assert named["nvdiffrast"].opt_in and not named["pytorch3d"].opt_in
    offered = (dispatch.Backend("strings", "core.errors", opt_in=True), named["reference"])
    monkeypatch.setitem(dispatch._kernels, "mesh_raster", offered)
    assert dispatch.choose("mesh_raster", "cpu").name == "reference"
    assert dispatch.choose("mesh_raster", "cpu", "strings").name == "strings"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["pytorch3d", "nvdiffrast", "reference"])
def test_cuda_backends_agree_with_float64(backend: str) -> None:
    available, why = {b.name: b for b in dispatch.backends("mesh_raster")}[backend].available()
    if not available:
        pytest.skip(why)
    views = cameras(64, 80)
    points, faces = ball(4, torch.tensor(0.8, dtype=torch.float64), views)
    truth = rasterise(points, faces, 64, 80, backend="reference")
    device = points.float().cuda().requires_grad_()
    seen = rasterise(device, faces.cuda(), 64, 80, backend=backend)
    same = seen.face.cpu() == truth.face
    assert float(same.double().mean()) > 0.995
    torch.testing.assert_close(seen.depth.cpu().double()[same], truth.depth[same], atol=1e-3, rtol=1e-3)
    wanted = opacity(points, faces, 64, 80, "reference")
    found = opacity(device, faces.cuda(), 64, 80, backend)
    assert float((found.detach().cpu().double() - wanted).abs().mean()) < 2e-3
    (grad,) = torch.autograd.grad(found.sum(), device)
    assert bool(grad.isfinite().all()) and float(grad.abs().max()) > 0
