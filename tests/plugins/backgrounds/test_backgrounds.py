"""Backgrounds: the colour that was asked for, and a network of the direction."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from core.contracts import Context
from core.testing import check_component
from plugins.backgrounds.neural import Neural
from plugins.backgrounds.solid import Solid

DIRECTIONS = F.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.mark.parametrize("name", ["solid", "neural"])
def test_every_background_keeps_its_contract(name: str) -> None:
    assert len(check_component("background", name)) >= 8


def test_a_solid_background_is_one_colour() -> None:
    found = Solid(Solid.Config(color=(0.1, 0.2, 0.9)), Context())(DIRECTIONS.view(2, 10, 10, 3))
    assert torch.equal(found, torch.tensor([0.1, 0.2, 0.9]).expand(2, 10, 10, 3))
    assert Solid.Config().color == (0.5, 0.5, 0.5)
    assert Solid(Solid.Config(), Context())(DIRECTIONS.double()).dtype == torch.float64


@pytest.mark.parametrize("color", [(1.2, 0.0, 0.0), (0.0, -0.1, 0.0), (0.0, 0.0)])
def test_colours_are_in_0_to_1(color: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Solid.Config(color=color)


def test_the_network_starts_near_grey_and_follows_its_formula() -> None:
    made = Neural(Neural.Config(harmonics=2, hidden=4), Context(seed=1))
    found = made(DIRECTIONS).detach()
    assert float((found - 0.5).abs().max()) < 0.05
    d = DIRECTIONS
    code = torch.cat([d.sin(), (2 * d).sin(), d.cos(), (2 * d).cos()], -1)
    hidden = (code @ made.first.weight.T + made.first.bias).clamp(min=0)
    torch.testing.assert_close(found, torch.sigmoid(hidden @ made.second.weight.T + made.second.bias).detach())


def test_the_network_can_tell_directions_apart() -> None:
    """A few steps of training give a sky above and a ground below."""
    made = Neural(Neural.Config(), Context())
    above = (DIRECTIONS[:, 2:] > 0).float()
    wanted = above * torch.tensor([0.2, 0.4, 0.9]) + (1 - above) * torch.tensor([0.4, 0.3, 0.1])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (made(DIRECTIONS) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.015


def test_initial_values_follow_from_the_seed_alone() -> None:
    torch.manual_seed(3)
    first = Neural(Neural.Config(), Context(seed=1))
    same, other = Neural(Neural.Config(), Context(seed=1)), Neural(Neural.Config(), Context(seed=2))
    assert torch.equal(first(DIRECTIONS), same(DIRECTIONS))
    assert not torch.equal(first(DIRECTIONS), other(DIRECTIONS))
