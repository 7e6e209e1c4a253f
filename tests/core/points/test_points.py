"""Layers, surfaces and distances of point sets, against brute force and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from core.errors import UserError
from core.meshing.compare import chamfer
from core.points.layers import AdaptiveGroupNorm, Cloud, PointVoxelConv
from core.points.neighbours import ball_query, farthest_points, interpolate, take
from core.points.poisson import estimated_normals, indicator, poisson_mesh
from core.points.sets import chamfer_matrix, earth_mover_matrix, set_scores
from core.points.unet import DownConfig, PointEncoder, PointUnet, UnetConfig, UpConfig
from core.points.voxels import devoxelise, grid_coordinates, voxelise

SMALL = UnetConfig(
    down=(
        DownConfig(channels=8, blocks=2, resolution=4, centers=16, radius=0.8, neighbours=8, mlp=(8, 16)),
        DownConfig(channels=16, resolution=4, centers=8, radius=1.5, neighbours=8, mlp=(16,)),
        DownConfig(centers=4, radius=3.0, neighbours=8, mlp=(16,)),
    ),
    up=(UpConfig(mlp=(16,), channels=16, resolution=4),) * 3,
    head=16,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sphere(count: int, radius: float = 0.6) -> torch.Tensor:
    """Points of a Fibonacci lattice."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * k / count, math.pi * (1 + math.sqrt(5)) * k
    flat = (1 - z.square()).sqrt()
    return (torch.stack([flat * angle.cos(), flat * angle.sin(), z], -1) * radius).float()


def test_farthest_points_are_those_of_brute_force() -> None:
    coords = random(3, 3, 40)
    found = farthest_points(coords, 9)
    for points, mine in zip(coords.transpose(1, 2).double(), found, strict=True):
        chosen = [int((points - points.mean(0)).norm(dim=-1).argmax())]
        while len(chosen) < 9:
            chosen.append(int(torch.cdist(points, points[chosen]).amin(1).argmax()))
        assert mine.tolist() == chosen


def test_more_centres_than_points_are_refused() -> None:
    with pytest.raises(UserError, match="41 points cannot be chosen of 40"):
        farthest_points(random(1, 3, 40), 41)


def test_a_ball_holds_the_nearest_within_its_radius() -> None:
    coords, centers = random(2, 3, 50), random(2, 3, 5, seed=1)
    found = ball_query(coords, centers, 0.9, 6)
    gap = torch.cdist(centers.transpose(1, 2).double(), coords.transpose(1, 2).double())
    for b, m in itertools.product(range(2), range(5)):
        order = gap[b, m].argsort()[:6]
        inside = [int(i) for i in order if gap[b, m, i] <= 0.9]
        assert set(found[b, m].tolist()) == set(inside or [int(order[0])])


def test_interpolation_weighs_by_inverse_squared_distance() -> None:
    coords, centers, features = random(1, 3, 7), random(1, 3, 5, seed=1), random(1, 2, 5, seed=2)
    found = interpolate(coords, centers, features)
    for n in range(7):
        gap = (centers[0] - coords[0, :, n : n + 1]).double().square().sum(0)
        near = gap.argsort()[:3]
        share = (1 / gap[near]) / (1 / gap[near]).sum()
        torch.testing.assert_close(found[0, :, n].double(), features[0][:, near].double() @ share, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(interpolate(centers, centers, features), features, rtol=1e-3, atol=1e-3)


def test_voxels_are_means_and_read_back_linear_functions_exactly() -> None:
    cells = torch.tensor([[[0.2, 0.4, 2.6], [1.0, 1.0, 3.0], [0.0, 0.0, 1.0]]])
    grid = voxelise(torch.tensor([[[1.0, 3.0, 5.0]]]), cells, 4)
    assert grid[0, 0, 0, 1, 0] == 2.0 and grid[0, 0, 3, 3, 1] == 5.0 and float(grid.sum()) == 7.0
    axis = torch.arange(4.0)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    product = (x + 2 * y * z)[None, None]  # trilinear, so the interpolation is the function itself
    places = torch.rand(1, 3, 20, generator=torch.Generator().manual_seed(0)) * 3
    px, py, pz = places[0]
    torch.testing.assert_close(devoxelise(product, places)[0, 0], px + 2 * py * pz)


def test_grid_coordinates_do_not_depend_on_place_and_size() -> None:
    coords = random(2, 3, 30)
    cells = grid_coordinates(coords, 8)
    torch.testing.assert_close(cells, grid_coordinates(3 * coords + 1, 8), rtol=1e-4, atol=1e-4)
    assert cells.min() >= 0 and cells.max() <= 7


def test_networks_know_no_order() -> None:
    torch.manual_seed(0)
    net, encoder = PointUnet(SMALL, 1, 4, 6, 8).eval(), PointEncoder(SMALL.down[:2], 5).eval()
    x, style, t = random(2, 48, 4), random(2, 6, seed=1), torch.tensor([3.0, 700.0])
    order = torch.randperm(48)
    with torch.no_grad():
        out = net(x, style, t)
        torch.testing.assert_close(net(x[:, order], style, t), out[:, order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(x[:, order, :3]), encoder(x[..., :3]), rtol=1e-4, atol=1e-5)
        assert (net(x, style, t.flip(0)) - out).abs().max() > 1e-3
        assert (net(x, style.flip(0), t) - out).abs().max() > 1e-4


def test_gradients_reach_every_parameter_and_the_condition_is_heard() -> None:
    torch.manual_seed(0)
    net = PointUnet(SMALL, 1, 4, 6, 8, condition=5)
    x, style, told = random(2, 48, 4).requires_grad_(), random(2, 6, seed=1).requires_grad_(), random(2, 5, seed=2)
    out = net(x, style, torch.tensor([3.0, 700.0]), told)
    out.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
    norms = [m.emd.weight.grad for m in net.modules() if isinstance(m, AdaptiveGroupNorm)]
    assert norms and all(g is not None and g.abs().sum() > 0 for g in norms)
    assert x.grad is not None and style.grad is not None and x.grad.abs().sum() > 0 and style.grad.abs().sum() > 0
    net.eval()
    assert (net(x, style, torch.ones(2), told) - net(x, style, torch.ones(2), -told)).abs().max() > 1e-5


def test_an_adaptive_norm_is_factor_and_offset_after_group_norm() -> None:
    layer = AdaptiveGroupNorm(16, 3)
    x, style = random(2, 16, 9), random(2, 3, seed=1)
    factor, offset = layer.emd(style)[..., None].chunk(2, 1)
    torch.testing.assert_close(layer(x, style), torch.nn.functional.group_norm(x, 8) * factor + offset)
    torch.testing.assert_close(layer(x, torch.zeros(2, 3)), torch.nn.functional.group_norm(x, 8))


def test_a_point_voxel_convolution_hears_neighbours() -> None:
    torch.manual_seed(0)
    layer = PointVoxelConv(2, 8, 4).eval()
    coords, features = random(1, 3, 20), random(1, 2, 20, seed=1)
    changed = features.clone()
    changed[..., 0] += 1
    with torch.no_grad():
        moved = (layer(Cloud(changed, coords)).features - layer(Cloud(features, coords)).features).abs().amax(1)[0]
    assert int((moved > 1e-6).sum()) > 1


def test_the_surface_of_a_spheres_points_is_that_sphere() -> None:
    points = sphere(2000)
    mesh = poisson_mesh(points, points / 0.6, 1.0, 48)
    radius = mesh.vertices.norm(dim=-1)
    assert abs(float(radius.mean()) - 0.6) < 0.006 and float(radius.std()) < 0.006
    corners = mesh.vertices[mesh.faces]
    volume = float((corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6)
    assert volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.03)  # positive: wound outwards
    chi = indicator(points, points / 0.6, 1.0, 48)
    assert float(chi[24, 24, 24]) < 0 < float(chi[0, 0, 0])


def test_the_surface_follows_its_points() -> None:
    base = sphere(600)
    size = torch.tensor(1.0, requires_grad=True)

    def mean_radius(s: torch.Tensor) -> torch.Tensor:
        return poisson_mesh(base * s, base / 0.6, 1.0, 32).vertices.norm(dim=-1).mean()

    (slope,) = torch.autograd.grad(mean_radius(size), size)
    with torch.no_grad():
        finite = (mean_radius(torch.tensor(1.05)) - mean_radius(torch.tensor(0.95))) / 0.1
    assert float(slope) == pytest.approx(float(finite), rel=0.1) and float(slope) == pytest.approx(0.6, rel=0.1)


def test_points_that_make_no_surface_are_refused() -> None:
    with pytest.raises(UserError, match="at least four points"):
        indicator(torch.zeros(3, 3), torch.zeros(3, 3), 1.0)
    with pytest.raises(UserError, match="finite"):
        indicator(torch.full((9, 3), torch.nan), torch.zeros(9, 3), 1.0)


def test_estimated_normals_point_outwards() -> None:
    points = sphere(500)
    assert float((estimated_normals(points) * points / 0.6).sum(-1).min()) > 0.98


def test_set_distances_are_those_of_pairs() -> None:
    a, b = random(3, 20, 3), random(2, 20, 3, seed=1)
    found, moved = chamfer_matrix(a, b), earth_mover_matrix(a, b)
    for i, j in itertools.product(range(3), range(2)):
        assert float(found[i, j]) == pytest.approx(2 * float(chamfer(a[i], b[j], squared=True)), rel=1e-4)
    shuffled = a[:, torch.randperm(20)]
    assert earth_mover_matrix(a[:1], shuffled[:1] + torch.tensor([0.0, 0.0, 9.0]))[0, 0] >= 9.0
    torch.testing.assert_close(earth_mover_matrix(a[:1], shuffled[:1]), torch.zeros(1, 1), rtol=0, atol=1e-3)
    few = random(2, 1, 5, 3, seed=2)
    gaps = torch.cdist(few[0, 0], few[1, 0])
    least = min(sum(float(gaps[k, p[k]]) for k in range(5)) / 5 for p in itertools.permutations(range(5)))
    assert float(earth_mover_matrix(few[0], few[1])[0, 0]) == pytest.approx(least, rel=1e-5)
    assert moved.shape == (3, 2)


def test_scores_tell_sets_apart() -> None:
    places = np.arange(6.0)
    gaps = torch.from_numpy(np.abs(places[:, None] - places[None])).float()
    apart = set_scores(gaps, gaps + 100, gaps)
    assert apart == {"1-nna": 1.0, "mmd": 100.0, "cov": 1.0}
    same = set_scores(gaps, gaps + 0.01, gaps)  # each has its twin in the other set
    assert same["1-nna"] == 0.0 and same["cov"] == 1.0
    collapsed = set_scores(torch.zeros(6, 6), gaps[:1].expand(6, 6) + 1, gaps)
    assert collapsed["cov"] == pytest.approx(1 / 6)


def test_take_is_fancy_indexing() -> None:
    features, index = random(2, 3, 9), torch.randint(9, (2, 4, 5))
    for b in range(2):
        torch.testing.assert_close(take(features, index)[b], features[b][:, index[b]])
