"""Panoramas: directions and look-up are each other's inverse; seams, poles and levels."""

from __future__ import annotations

import pytest
import torch

from core.panorama import ENVIRONMENTS, directions, environment, look_up, to_linear, to_srgb


def test_pixels_are_found_where_their_directions_point() -> None:
    picture = torch.rand(1, 9, 18, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(look_up(picture, directions(9, 18)), picture[0], atol=1e-5, rtol=0)


def test_the_front_is_in_the_middle_up_is_the_first_row_and_columns_wrap() -> None:
    axes = torch.eye(3)
    marks = directions(64, 128).view(1, 64, 128, 3)
    found = look_up(marks, torch.cat([axes, -axes]))
    assert float((found[[0, 1, 2, 4, 5]] - torch.cat([axes, -axes])[[0, 1, 2, 4, 5]]).abs().max()) < 0.05
    back = torch.tensor([[-1.0, 1e-4, 0], [-1, -1e-4, 0]])
    a, b = look_up(marks, back)
    torch.testing.assert_close(a, b, atol=1e-3, rtol=0)


def test_levels_are_interpolated_and_gradients_are_finite_at_the_poles() -> None:
    levels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 6, 1)
    level = torch.tensor([0.0, 1 / 6, 0.5, 1.0], requires_grad=True)
    toward = torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0], [0, 1, 0]], requires_grad=True)
    found = look_up(levels, toward, level)
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 0.5, 1.5, 3.0]))
    grads = torch.autograd.grad(found.sum(), (toward, level))
    assert all(bool(g.isfinite().all()) for g in grads)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_made_environments_are_bright_above_and_not_negative(name: str) -> None:
    toward = directions(32, 64)
    light = environment(name, toward)
    assert bool((light >= 0).all()) and light.shape == (32, 64, 3)
    assert float(light[:16].mean()) > 1.2 * float(light[16:].mean())
    with pytest.raises(ValueError, match="no environment"):
        environment("moon", toward)


def test_srgb_and_back() -> None:
    values = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(to_srgb(to_linear(values)), values, atol=1e-6, rtol=0)
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.2140, abs=1e-4)
