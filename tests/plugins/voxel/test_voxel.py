"""The dense grid against its own interpolation, written out; its variation; latents; taking over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core import fields
from core.contracts import Context, Step
from core.errors import UserError
from core.testing import check_component
from core.testing.reference import Ball
from core.types import Cameras, Render
from plugins.voxel.voxel import Voxel

SMALL = {"cells": 8}
SEEN = Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1), Cameras(torch.eye(4)[None], torch.ones(1), 2, 2))


def build(seed: int = 0, parts: dict[str, Any] | None = None, **options: Any) -> Voxel:
    return Voxel(Voxel.Config(**SMALL | options), Context(seed=seed, parts=parts or {}))


def cube(count: int = 300) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_it_keeps_its_contract() -> None:
    assert len(check_component("geometry", "voxel", options=SMALL)) >= 15


def test_it_is_a_trilinear_grid() -> None:
    voxel, points = build(), cube()
    with torch.no_grad():
        voxel.shape.normal_(generator=torch.Generator().manual_seed(1))
        voxel.colour.normal_(generator=torch.Generator().manual_seed(2))
    grid = torch.cat([voxel.shape, voxel.colour], -1).detach().double().view(9, 9, 9, 4).permute(3, 0, 1, 2)[None]
    at = points.double().view(1, 1, 1, -1, 3)
    raw = F.grid_sample(grid, at, mode="bilinear", align_corners=True)[0, :, 0, 0].t()
    found, o = voxel.field(points), voxel.options
    blob = 3.0 * (1 - points.double().norm(dim=-1) / 0.4)
    torch.testing.assert_close(found["features"].double(), raw[:, 1:], rtol=1e-4, atol=1e-5)
    density = F.softplus(raw[:, 0] * o.gain + blob) * o.scale
    torch.testing.assert_close(found["density"].double(), density, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(voxel.features(points), found["features"])
    assert not bool(voxel.density(points * 5)[(points * 5).abs().amax(-1) > 1].any())


def test_normals_can_be_trained() -> None:
    """The density's slope has a gradient in the grid, which ``grid_sample`` would not give."""
    voxel, points = build(), cube(50).requires_grad_()
    (slope,) = torch.autograd.grad(voxel.density(points).sum(), points, create_graph=True)
    slope.square().sum().backward()
    assert voxel.shape.grad is not None and bool((voxel.shape.grad != 0).any())


def test_variation_is_that_of_neighbours() -> None:
    voxel = build(channels=2)
    total = 0.0
    for table in (voxel.shape, voxel.colour):
        g = table.detach().view(9, 9, 9, -1)
        total += float(
            ((g[1:] - g[:-1]).square().mean() + (g[:, 1:] - g[:, :-1]).square().mean()
             + (g[:, :, 1:] - g[:, :, :-1]).square().mean()) / 3
        )  # fmt: skip
    assert float(voxel.extra("variation", SEEN, Step(0, 1)).detach()) == pytest.approx(total, rel=1e-5)
    with torch.no_grad():
        voxel.shape.fill_(2.0), voxel.colour.fill_(-1.0)
    assert float(voxel.extra("variation", SEEN, Step(0, 1)).detach()) == 0.0


class Space:
    """A prior of eleven channels."""

    def space(self) -> tuple[int, int, int]:
        return 11, 8, 8


def test_latent_channels_follow_the_prior() -> None:
    voxel = build(channels="latent", parts={"prior": Space()})
    assert voxel.field(cube())["features"].shape == (300, 11)
    with pytest.raises(UserError, match="no guidance is here"):
        build(channels="latent")
    with pytest.raises(UserError, match="at least 1"):
        build(channels=0)


def test_it_takes_over_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "FIT_STEPS", 80)
    monkeypatch.setattr(fields, "FIT_POINTS", 4096)
    one, two = build(1), build(2)
    two.init_from(one)
    assert torch.equal(one.density(cube()), two.density(cube()))
    voxel, ball, points = build(cells=24), Ball(), cube(2000)
    steps: list[int] = []
    voxel.init_from(ball, steps.append)
    assert steps == list(range(80))
    found, wanted = voxel.field(points), ball.field(points)
    apart = (found["density"].log1p() - wanted["density"].log1p()).abs()
    assert float(apart.detach().mean()) < 0.25
    inside = points.norm(dim=-1) < 0.4
    assert float((found["features"] - wanted["features"])[inside].detach().abs().mean()) < 0.2
