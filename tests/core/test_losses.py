"""Every regulariser against a value worked out by hand or from its formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core import losses
from core.contracts import Step
from core.discovery import get_registry
from core.errors import UserError
from core.testing import check_component
from core.types import Cameras, Render

STEP = Step(0, 1)
CAMERAS = Cameras(torch.eye(4)[None], torch.ones(1), 2, 2)


def seen(
    opacity: Tensor | None = None, rgb: Tensor | None = None, normal: Tensor | None = None, **extras: Tensor
) -> Render:
    opacity = torch.ones(1, 2, 2, 1) if opacity is None else opacity
    rgb = torch.zeros(*opacity.shape[:3], 3) if rgb is None else rgb
    return Render(rgb, opacity, CAMERAS, normal=normal, extras=extras)


def picture(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 2, 2, 1)


def test_sparsity() -> None:
    wanted = (0.1 + math.sqrt(0.26) + math.sqrt(1.01) + math.sqrt(0.05)) / 4
    assert float(losses.sparsity(seen(picture(0.0, 0.5, 1.0, 0.2)), STEP)) == pytest.approx(wanted, rel=1e-6)


def test_opacity_is_the_binary_entropy() -> None:
    entropy = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (0.5, 0.25, 0.9, 0.001)]
    found = losses.opacity(seen(picture(0.5, 0.25, 0.9, 0.001)), STEP)
    assert float(found) == pytest.approx(sum(entropy) / 4, rel=1e-5)
    assert float(losses.opacity(seen(picture(0.5, 0.5, 0.5, 0.5)), STEP)) == pytest.approx(math.log(2))
    certain = picture(0.0, 1.0, 1.0, 0.0).requires_grad_()
    losses.opacity(seen(certain), STEP).backward()
    assert certain.grad is not None and bool(torch.isfinite(certain.grad).all())


def test_orientation_counts_normals_that_face_away_by_their_detached_weight() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25]).requires_grad_()
    facing = torch.tensor([0.8, -1.0, 0.4]).requires_grad_()  # cosine of the normal with the viewing direction
    loss = losses.orientation(seen(weights=weights, facing=facing), STEP)
    assert loss.item() == pytest.approx((0.5 * 0.64 + 0.25 * 0.16) / 4)
    loss.backward()
    assert weights.grad is None and facing.grad is not None
    torch.testing.assert_close(facing.grad, torch.tensor([2 * 0.5 * 0.8, 0.0, 2 * 0.25 * 0.4]) / 4)


def test_distortion_is_the_mean_of_the_variance() -> None:
    assert float(losses.distortion(seen(depth_variance=torch.tensor([0.0, 0.2, 0.4, 0.2])), STEP)) == pytest.approx(0.2)


def test_smoothness_compares_neighbours_that_are_both_covered() -> None:
    x, z = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    normal = torch.stack([x, x, x, z]).view(1, 2, 2, 3)
    # One pair differs along x, one along y: |x - z|^2 = 2, over 2 pairs with 3 channels each.
    assert float(losses.smoothness(seen(normal=normal), STEP)) == pytest.approx(2 * 2 / 6)
    uncovered = seen(picture(1, 1, 1, 0), normal=normal)
    assert float(losses.smoothness(uncovered, STEP)) == 0.0
    half = seen(picture(1, 1, 1, 0.5), normal=normal)
    assert float(losses.smoothness(half, STEP)) == pytest.approx(2 * 2 / 6 / 2)


def test_saturation_counts_chroma_above_nine_tenths() -> None:
    rgb = torch.tensor([[1.0, 0.0, 0.5], [0.95, 0.0, 0.0], [0.9, 0.0, 0.2], [0.5, 0.5, 0.5]]).view(1, 2, 2, 3)
    found = losses.saturation(seen(rgb=rgb), STEP)
    assert float(found) == pytest.approx((0.01 + 0.0025) / 4, rel=1e-5)


@pytest.mark.parametrize("name", ["orientation", "distortion", "smoothness"])
def test_what_the_renderer_did_not_give_is_named(name: str) -> None:
    function: Any = getattr(losses, name)
    with pytest.raises(UserError, match="needs '(weights|depth_variance|normal)', which the renderer did not give"):
        function(seen(), STEP)


@pytest.mark.parametrize("entry", get_registry().entries("loss"), ids=lambda e: e.name)
def test_every_loss_keeps_its_contract(entry: Any) -> None:
    assert check_component("loss", entry.qualified)


def test_emptiness_costs_more_spread_thin() -> None:
    one, many = torch.tensor([0.8, 0.0, 0.0, 0.0]), torch.full((4,), 0.2)
    thick, thin = (losses.emptiness(seen(weights=w), STEP) for w in (one, many))
    assert float(thick) == pytest.approx(math.log(9) / 4) and float(thin) == pytest.approx(4 * math.log(3) / 4)


def test_eikonal_is_the_squared_distance_of_the_slope_from_one() -> None:
    slopes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]])
    assert float(losses.eikonal(seen(**{"sdf-gradient": slopes}), STEP)) == pytest.approx(17 / 3)


def test_total_variation_is_what_the_geometry_gives() -> None:
    assert float(losses.total_variation(seen(variation=torch.tensor(0.7)), STEP)) == pytest.approx(0.7)
    with pytest.raises(UserError, match="variation"):
        losses.total_variation(seen(), STEP)


def test_nearness_asks_for_the_order_of_depths_and_not_for_their_scale() -> None:
    depth = picture(1.0, 2.0, 4.0, 9.0).requires_grad_()
    cover = picture(1.0, 1.0, 1.0, 0.0)
    told = {"target-nearness": 5 - 0.1 * picture(1.0, 2.0, 4.0, 0.0), "target-mask": cover}
    render = Render(torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2, 1), CAMERAS, depth=depth, extras=told)
    assert losses.nearness(render, STEP).item() == pytest.approx(0, abs=1e-5)
    render.extras["target-nearness"] = picture(1.0, 5.0, 3.0, 7.0)
    wanted = 1 - float(np.corrcoef([-1, -2, -4], [1, 5, 3])[0, 1])
    loss = losses.nearness(render, STEP)
    assert loss.item() == pytest.approx(wanted, abs=1e-5)
    loss.backward()
    assert depth.grad is not None and depth.grad[0, 1, 1, 0] == 0  # outside the mask nothing is compared
    render.extras["target-mask"] = torch.zeros(1, 2, 2, 1)
    assert losses.nearness(render, STEP).item() == 0


def test_normal_is_the_cosine_where_both_show_the_object() -> None:
    found, given = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3)
    found[..., 2], given[..., 2] = 0.7, 1.0
    given[0, 0, 1] = torch.tensor([1.0, 0.0, 0.0])
    given[0, 1, 1] = torch.tensor([0.0, 0.0, -1.0])
    extras = {"target-normal": given, "target-mask": picture(1.0, 1.0, 1.0, 0.0)}
    assert float(losses.normal(seen(normal=found, **extras), STEP)) == pytest.approx((0 + 1 + 0) / 3, abs=1e-6)
