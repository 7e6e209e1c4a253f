"""A field beside a sketch: distances and occupancy in closed form, the loss as published, and a shape that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from torch import Tensor

from core.contracts import Context, Step
from core.discovery import get_registry
from core.errors import UserError
from core.stages import component_builder
from core.testing import check_component
from core.types import Cameras, Render
from plugins.sketch_shape.loss import sketch_shape
from plugins.sketch_shape.sketched import Sketched

VOXEL = {"type": "voxel", "cells": 12, "bias": 0}
SEEN = Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1), Cameras(torch.eye(4)[None], torch.ones(1), 2, 2))


def build(**options: Any) -> Sketched:
    from core.config.values import Checker

    registry, context = get_registry(), Context()
    context.build = component_builder(registry, context)
    given = {"field": VOXEL, "cells": 24, "radius": 0.6, "points": 2000} | options
    return Sketched(options_of(given, Checker(registry)), context)


def options_of(given: dict[str, Any], checker: Any) -> Any:
    from core.config.nodes import from_python

    made = checker.model(Sketched.Config, from_python(given, "here"), "", "here")
    assert checker.problems == []
    return made


def loss(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    seen = Render(SEEN.rgb, SEEN.opacity, SEEN.cameras, extras={"sketch": torch.stack([found, wanted, weight], 1)})
    return sketch_shape(seen, Step(0, 1))


def test_it_keeps_its_contract() -> None:
    assert len(check_component("geometry", "sketched", options={"field": VOXEL, "cells": 16})) >= 12
    assert check_component("loss", "sketch-shape")


def test_the_signal_is_the_field_s_occupancy_and_a_ball_s() -> None:
    """A ball's distance and the published weight in closed form, within what a grid of 1/12 can tell."""
    geometry = build(leniency=0.2, stretch=0.3)
    step = Step(3, 10)
    found, inside, weight = geometry.extra("sketch", SEEN, step).unbind(1)
    points = torch.rand(2000, 3, generator=step.generator("sketch")) * 2 - 1
    away = points.norm(dim=1) - 0.6
    sure = away.abs() > 0.02
    assert torch.equal(inside[sure], (away < 0).float()[sure]) and 50 < int(inside.sum()) < 500
    exact = 1 - torch.exp(-away.square() / (2 * 0.2**2))
    torch.testing.assert_close(weight, exact, atol=0.03, rtol=0)
    torch.testing.assert_close(found, 1 - torch.exp(-0.3 * geometry.density(points)))


def test_the_loss_is_the_weighted_cross_entropy() -> None:
    found, wanted, weight = torch.tensor([0.25, 0.9]), torch.tensor([1.0, 0.0]), torch.tensor([0.5, 1.0])
    certain, never = torch.tensor(0.99).log(), torch.tensor(0.01).log()
    exact = (-0.5 * (0.25 * certain + 0.75 * never) - (0.9 * never + 0.1 * certain)) / 2
    torch.testing.assert_close(loss(found, wanted, weight), exact)
    assert float(loss(wanted, wanted, weight)) < 0.01


def test_a_field_becomes_the_sketch_away_from_its_surface(tmp_path: Path) -> None:
    box = trimesh.creation.box((0.8, 0.8, 0.8))
    box.export(tmp_path / "box.stl")
    geometry = build(file=str(tmp_path / "box.stl"), radius=0.4 * 3**0.5, leniency=0.05)
    optimizer = torch.optim.Adam(geometry.param_groups(), lr=0.3)
    for index in range(40):
        step = Step(index, 40)
        signal = geometry.extra("sketch", SEEN, step)
        optimizer.zero_grad()
        loss(*signal.unbind(1)).backward()
        optimizer.step()
    found, inside, weight = geometry.extra("sketch", SEEN, Step(99, 100)).detach().unbind(1)
    far = weight > 0.9
    assert float(found[far & (inside == 1)].min()) > 0.9 and float(found[far & (inside == 0)].max()) < 0.1
    assert 0.9 * 0.512 / 8 < float(inside.mean()) < 1.1 * 0.512 / 8  # the box's share of the cube


def test_it_takes_over_what_a_sketched_field_was() -> None:
    first, second = build(), build()
    with torch.no_grad():
        first.inner.shape.normal_(generator=torch.Generator().manual_seed(1))
    second.init_from(first)
    assert torch.equal(second.inner.shape, first.inner.shape)


def test_a_missing_sketch_is_told() -> None:
    with pytest.raises(UserError, match=r"geometry\.file: there is no file nowhere\.obj"):
        build(file="nowhere.obj")
