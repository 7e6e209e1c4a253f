"""The hash-grid geometry: shapes, where it is zero, its initial blob, gradients, and what seeds decide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core import fields
from core.contracts import Context, Step
from core.testing import check_component
from plugins.nerf.hash_grid import HashGrid

SMALL = {"levels": 4, "log2_table": 10, "finest": 32, "hidden": 8}


def build(seed: int = 0, bound: float = 1.0, **options: Any) -> HashGrid:
    return HashGrid(HashGrid.Config(**SMALL | options), Context(seed=seed, bound=bound))


def cube(count: int = 500, side: float = 1.0) -> Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * side


def test_it_keeps_its_contract() -> None:
    assert len(check_component("geometry", "hash-grid", options=SMALL)) >= 12


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_shapes_and_signs(channels: int) -> None:
    grid = build(channels=channels)
    with torch.no_grad():
        grid.table.uniform_(-3, 3, generator=torch.Generator().manual_seed(1))
    found = grid.field(cube())
    assert found["density"].shape == (500,) and found["features"].shape == (500, channels)
    assert bool((found["density"] > 0).all())
    torch.testing.assert_close(grid.density(cube()), found["density"])
    assert grid.field(torch.zeros(0, 3))["features"].shape == (0, channels)


@pytest.mark.parametrize("bound", [1.0, 2.5])
def test_nothing_is_outside_the_cube(bound: float) -> None:
    grid = build(bound=bound)
    on_side = torch.tensor([[bound, 0.0, 0.0], [-bound, bound, bound]])
    beyond = on_side * 1.001
    assert bool((grid.density(on_side) > 0).all())
    assert torch.equal(grid.density(beyond), torch.zeros(2))
    far = cube(side=bound)
    far = far / far.abs().amax(-1, keepdim=True) * bound * 3
    assert torch.equal(grid.field(far)["density"], torch.zeros(500))


def test_it_starts_as_the_blob_of_its_options() -> None:
    """With a fresh table the network adds little: density is nearly scale softplus(bias (1 - |x| / radius))."""
    grid = build(bias=6.0, bias_radius=0.5, scale=20.0)
    radius = torch.tensor([0.0, 0.25, 0.5, 0.9])
    points = radius[:, None] * F.normalize(torch.tensor([1.0, 1.0, 0.5]), dim=0)
    with torch.no_grad():
        for layer in (grid.first, grid.second):
            layer.weight.zero_()
    wanted = 20.0 * F.softplus(6.0 * (1 - radius / 0.5))
    torch.testing.assert_close(grid.density(points), wanted, rtol=1e-4, atol=1e-4)


def test_the_scene_at_the_start_is_round_and_in_the_middle() -> None:
    """The random network does not tear the blob apart: what is dense lies near the centre."""
    for seed in range(3):
        points = cube(4000)
        density = build(seed=seed).density(points).detach()
        radius = points.norm(dim=-1)
        inner, outer = density[radius < 0.3], density[radius > 0.9]
        assert float(inner.min()) > 2 * float(outer.mean())


def test_gradients_reach_the_table_the_network_and_the_points() -> None:
    grid, points = build(), cube().requires_grad_()
    found = grid.field(points)
    (found["density"].sum() + found["features"].square().sum()).backward()
    for name, p in [*grid.named_parameters(), ("points", points)]:
        assert p.grad is not None and bool(torch.isfinite(p.grad).all()) and bool((p.grad != 0).any()), name


def test_the_gradient_in_a_point_is_the_slope_of_density() -> None:
    grid, points = build(), cube(50, 0.9)
    with torch.no_grad():
        grid.table.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(1))
    inside = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(grid.density(inside).sum(), inside)
    h = 1e-4  # far below a cell (1/16), so few points have a cell's side within reach
    for axis in range(3):
        move = torch.eye(3)[axis] * h
        slope = (grid.density(points + move) - grid.density(points - move)).detach() / (2 * h)
        error = (slope - gradient[:, axis]).abs() / gradient.norm(dim=-1).clamp(min=1)
        assert float(error.median()) < 0.01 and float((error < 0.05).float().mean()) > 0.9


def test_normals_can_be_trained() -> None:
    """A loss on the density's gradient reaches the table: gradients of gradients are there."""
    grid, points = build(), cube(60).requires_grad_()
    (slope,) = torch.autograd.grad(grid.density(points).sum(), points, create_graph=True)
    slope.square().sum().backward()
    assert grid.table.grad is not None and bool((grid.table.grad != 0).any())


def test_initial_values_follow_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = build(seed=3)
    torch.manual_seed(6)
    same, other = build(seed=3), build(seed=4)
    pairs = list(zip(first.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs if bool(a.any()))
    assert float(first.table.detach().abs().max()) <= 1e-3


def test_backends_of_the_encoding_agree() -> None:
    reference, numba = build(kernel="reference"), build(kernel="numba")
    a, b = (g.field(cube()) for g in (reference, numba))
    torch.testing.assert_close(a["density"], b["density"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a["features"], b["features"], rtol=1e-4, atol=1e-5)


def test_the_network_learns_more_slowly_than_the_table() -> None:
    table, network = build().param_groups()
    assert table.get("lr_scale", 1.0) == 1.0 and 0 < network["lr_scale"] < 1
    assert len(table["params"]) == 1 and len(network["params"]) == 4


def test_a_finest_level_below_the_coarsest_is_raised_to_it() -> None:
    assert build(base_resolution=16, finest=8).spec.resolutions == (16,) * 4


def test_it_copies_its_like() -> None:
    one, two = build(seed=1), build(seed=2)
    two.init_from(one)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_it_fits_another_density_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another shape of grid: the blob is found again to a tenth of its height, from a start that is far off."""
    monkeypatch.setattr(fields, "FIT_STEPS", 120)
    monkeypatch.setattr(fields, "FIT_POINTS", 2048)
    source, target = build(bias=4.0, bias_radius=0.6), build(levels=5, bias=0.5, bias_radius=0.3)
    points, steps = cube(), []
    before = (target.density(points) - source.density(points)).abs().mean()
    target.init_from(source, steps.append)
    after = (target.density(points) - source.density(points)).abs().mean()
    assert steps == list(range(120))
    assert float(after) < 0.35 * float(before)


def test_the_blob_is_annealed_and_stays_so_in_a_checkpoint() -> None:
    """Regression: a schedule that is read, written down and never used (D2)."""
    grid = build(bias={"from": 6.0, "to": 0.0}, bias_radius={"from": 0.6, "to": 0.3})
    with torch.no_grad():
        grid.second.weight.zero_()
    middle = torch.zeros(1, 3)
    for index, bias in ((0, 6.0), (50, 3.0), (100, 0.0)):
        grid.update(Step(index, 101))
        torch.testing.assert_close(grid.density(middle), 25 * F.softplus(torch.tensor([bias])))
    grid.update(Step(50, 101))
    edge = torch.tensor([[0.0, 0.45, 0.0]])
    torch.testing.assert_close(grid.density(edge), 25 * F.softplus(torch.tensor([0.0])))
    other = build(seed=1, bias=6.0, bias_radius=0.6)
    other.load_state_dict(grid.state_dict())
    torch.testing.assert_close(other.density(cube()), grid.density(cube()))


def test_levels_come_in_over_the_run() -> None:
    grid = build(active={"from": 0.25, "to": 1.0})
    with torch.no_grad():
        grid.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    assert grid.cell == 2 / grid.spec.resolutions[0]
    grid.density(cube()).sum().backward()
    assert [bool(g.any()) for g in grid.table.grad] == [True, False, False, False]
    grid.update(Step(60, 121))  # 0.625 of four levels: two and a half
    torch.testing.assert_close(grid.shown, torch.tensor([1.0, 1.0, 0.5, 0.0]))
    grid.update(Step(120, 121))
    assert grid.cell == 2 / grid.spec.resolutions[-1]
    torch.testing.assert_close(grid.density(cube()), whole(grid).density(cube()))


def whole(grid: HashGrid) -> HashGrid:
    """The same with every level from the start."""
    other = build()
    other.load_state_dict(grid.state_dict())
    return other


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_the_network_may_be_deeper(activation: str) -> None:
    grid, points = build(hidden_layers=3, activation=activation), cube(40)
    bend = getattr(F, activation)
    hidden = bend(grid.first(torch.cat([grid._code(points), points], -1)))
    for layer in grid.between:
        hidden = bend(layer(hidden))
    assert len(grid.between) == 2
    torch.testing.assert_close(grid.raw(points), grid.second(hidden))
    network = grid.param_groups()[1]["params"]
    assert len(network) == 8 and sum(p.numel() for p in network) == sum(
        p.numel() for n, p in grid.named_parameters() if n != "table"
    )
    other = build(seed=1, hidden_layers=3, activation=activation)
    other.init_from(grid)
    assert torch.equal(other.between[1].weight, grid.between[1].weight)
