"""Three planes: look-up against float64 written out, both ways of it, decoding, variation, taking over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core import fields
from core.contracts import Context, Step
from core.testing import check_component
from core.testing.reference import Ball
from core.types import Cameras, Render
from plugins.triplane.planes import sample_planes
from plugins.triplane.triplane import Triplane

SMALL = {"resolution": 9, "features": 4, "hidden": 8}
SEEN = Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1), Cameras(torch.eye(4)[None], torch.ones(1), 2, 2))


def build(seed: int = 0, **options: Any) -> Triplane:
    return Triplane(Triplane.Config(**SMALL | options), Context(seed=seed))


def cube(count: int = 200, side: float = 1.0) -> Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * side


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("reduce", ["sum", "product", "concat"])
def test_it_keeps_its_contract(reduce: str) -> None:
    assert len(check_component("geometry", "triplane", options=SMALL | {"reduce": reduce})) >= 15


def test_planes_lie_where_they_say() -> None:
    """At the grid's own points: xy, xz, yz, columns along the first axis, rows along the second."""
    planes = values(3, 2, 5, 5)
    axis = torch.linspace(-1, 1, 5, dtype=torch.float64)
    i, j, k = 1, 3, 4
    found = sample_planes(planes, torch.stack([axis[i], axis[j], axis[k]])[None])[:, 0]
    wanted = torch.stack([planes[0, :, j, i], planes[1, :, k, i], planes[2, :, k, j]])
    torch.testing.assert_close(found, wanted)


def test_both_ways_of_looking_up_agree_and_have_right_gradients() -> None:
    planes, points = values(3, 2, 5, 5).requires_grad_(), cube(40, 1.2).double()
    quick = sample_planes(planes, points)
    slow = sample_planes(planes, points.clone().requires_grad_())
    torch.testing.assert_close(quick, slow)
    weight = values(3, 40, 2)
    a, b = (torch.autograd.grad((v * weight).sum(), planes)[0] for v in (quick, slow))
    torch.testing.assert_close(a, b)
    inner = (cube(6, 0.9).double() + 0.013).requires_grad_()
    assert torch.autograd.gradcheck(sample_planes, (planes, inner), eps=1e-6)
    assert torch.autograd.gradgradcheck(sample_planes, (planes, inner), eps=1e-6)
    assert sample_planes(planes, torch.zeros(0, 3).double()).shape == (3, 0, 2)


@pytest.mark.parametrize("reduce", ["sum", "product", "concat"])
def test_how_planes_meet(reduce: str) -> None:
    triplane, points = build(reduce=reduce), cube()
    found = sample_planes(triplane.planes, points)
    code = {"sum": found.sum(0), "product": found[0] * found[1] * found[2], "concat": torch.cat(list(found), -1)}[reduce]
    hidden = triplane.first(torch.cat([code, points], -1))
    torch.testing.assert_close(triplane.raw(points), triplane.second(hidden * torch.sigmoid(hidden)))
    assert triplane.field(points)["features"].shape == (200, 3)


def test_gradients_reach_planes_network_and_points() -> None:
    triplane, points = build(), cube().requires_grad_()
    (slope,) = torch.autograd.grad(triplane.density(points).sum(), points, create_graph=True)
    slope.square().sum().backward()
    for name, p in triplane.named_parameters():
        if name.startswith("second.bias"):
            continue
        assert p.grad is not None and bool(torch.isfinite(p.grad).all()) and bool((p.grad != 0).any()), name


def test_variation_is_that_of_neighbours() -> None:
    triplane = build()
    p = triplane.planes.detach()
    wanted = ((p[:, :, 1:] - p[:, :, :-1]).square().mean() + (p[..., 1:] - p[..., :-1]).square().mean()) / 2
    torch.testing.assert_close(triplane.extra("variation", SEEN, Step(0, 1)).detach(), wanted)


def test_it_takes_over_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "FIT_STEPS", 80)
    monkeypatch.setattr(fields, "FIT_POINTS", 2048)
    one, two = build(1), build(2)
    two.init_from(one)
    assert torch.equal(one.density(cube()), two.density(cube()))
    triplane, ball, points = build(hidden=16), Ball(), cube(1500)
    before = (triplane.density(points).log1p() - ball.density(points).log1p()).abs().mean()
    triplane.init_from(ball)
    after = (triplane.density(points).log1p() - ball.density(points).log1p()).abs().mean()
    assert float(after.detach()) < 0.4 * float(before.detach())
