"""Rays through a cube: where they enter it, what they see of fields whose answer is known, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.generative.rays import ball_crossing, cast, crossing


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fog(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(points[:, 0], 0.7), torch.tensor([1.0, 0.0, 0.25]).to(points).expand_as(points)


def test_rays_enter_and_leave_where_the_cube_is() -> None:
    origins = torch.tensor([[-3.0, 0.2, 0.1], [-3.0, 0.0, 2.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    directions = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, -1.0], [1.0, 0, 0]])
    near, far = crossing(origins, directions, 1.0)
    assert near[[0, 2]].tolist() == [2, 0] and far[[0, 2]].tolist() == [4, 1]
    assert bool((near == far)[[1, 3]].all()), "beside the cube, and behind the eye"


def test_fog_of_one_density_is_seen_in_closed_form() -> None:
    origins = torch.tensor([[-3.0, 0.0, 0.0], [0.0, -3.0, 3.0]], dtype=torch.float64)
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]], dtype=torch.float64)  # through the middle, and past it
    seen = cast(fog, origins, directions, samples=400, bound=1.0, background=0.5)
    through = math.exp(-0.7 * 2)
    wanted = [(1 - through) * c + through * 0.5 for c in (1.0, 0.0, 0.25)]
    torch.testing.assert_close(seen.rgb[0], torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)
    mean = (1 / 0.7 - through * (2 + 1 / 0.7)) / (1 - through)  # of an exponential cut off at 2
    torch.testing.assert_close(float(seen.depth[0]), 2 + mean, atol=1e-4, rtol=0)
    assert seen.rgb[1].tolist() == [0.5] * 3 and float(seen.opacity[1]) == 0


def test_samples_are_stratified_and_follow_from_the_generator() -> None:
    heard: list[Tensor] = []

    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        heard.append(points[:, 0])
        return fog(points, directions)

    origins, directions = torch.tensor([[-3.0, 0.0, 0.0]]).expand(50, 3), torch.tensor([[1.0, 0, 0]]).expand(50, 3)
    for seed in (0, 0, 1):
        cast(field, origins, directions, samples=8, bound=1.0, generator=seeded(seed))
    assert torch.equal(heard[0], heard[1]) and not torch.equal(heard[0], heard[2])
    place = (heard[0].view(50, 8) + 1) * 4  # eight intervals of a quarter from -1 on
    assert torch.equal(place.floor(), torch.arange(8.0).expand(50, 8))
    assert 0.2 < float((place % 1).std()) < 0.4  # a uniform number has 0.29


def test_gradients_reach_the_field() -> None:
    weight = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    origins = torch.randn(6, 3, generator=seeded(), dtype=torch.float64) * 0.2 + torch.tensor([-3.0, 0, 0])
    directions = torch.nn.functional.normalize(-origins, dim=-1)

    def red(weight: Tensor) -> Tensor:
        def field(points: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
            return torch.nn.functional.softplus(points @ weight), torch.sigmoid(points * weight)

        return cast(field, origins, directions, samples=6, bound=1.0).rgb

    assert torch.autograd.gradcheck(red, weight)


def test_where_rays_cross_a_ball() -> None:
    """Through the middle, beside it, from inside, and looking away."""
    center = torch.tensor([0.0, 0.0, 1.0])
    origins = torch.tensor([[-3.0, 0, 1], [-3.0, 0.3, 1], [-3.0, 0.6, 1], [0.0, 0, 1], [3.0, 0, 1]])
    near, far = ball_crossing(origins, torch.tensor([1.0, 0, 0]).expand(5, 3), center, 0.5)
    torch.testing.assert_close(near[:2], torch.tensor([2.5, 2.6]))
    torch.testing.assert_close(far[:2], torch.tensor([3.5, 3.4]))
    assert near[2] == far[2] and near[4] == far[4] == 0
    assert near[3] == 0 and float(far[3]) == pytest.approx(0.5)
