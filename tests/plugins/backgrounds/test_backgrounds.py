"""Backgrounds: the colour that was asked for, and a network of the direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional as F

from core.contracts import Context, Step
from core.errors import UserError
from core.testing import check_component
from plugins.backgrounds.neural import Neural
from plugins.backgrounds.solid import Solid
from plugins.backgrounds.textured import Textured

DIRECTIONS = F.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.mark.parametrize(("name", "options"), [
    ("solid", {}), ("solid", {"learn": True}), ("neural", {}), ("textured", {}), ("textured", {"learn": True}),
])  # fmt: skip
def test_every_background_keeps_its_contract(name: str, options: dict[str, Any]) -> None:
    assert len(check_component("background", name, options=options)) >= 8


def test_a_learned_colour_starts_where_it_is_told_and_moves() -> None:
    made = Solid(Solid.Config(color=(0.2, 0.5, 1.0), learn=True), Context())
    torch.testing.assert_close(made(DIRECTIONS)[7], torch.tensor([0.2, 0.5, 1.0]), atol=2e-3, rtol=0)
    (grad,) = torch.autograd.grad(made(DIRECTIONS).sum(), made.logit)
    assert bool((grad > 0).all())
    assert not list(Solid(Solid.Config(), Context()).parameters())


def test_a_panorama_from_a_file_shows_its_front_in_front(tmp_path: Path) -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8, :, 2], picture[8:, :, 1], picture[:, 12:20, 0] = 255, 255, 255  # blue above green; red in front
    Image.fromarray(picture).save(tmp_path / "round.png")
    made = Textured(Textured.Config(path=str(tmp_path / "round.png"), height=16), Context())
    seen = made(F.normalize(torch.tensor([[1.0, 0, 0.3], [-1, 0, 0.3], [0, 1, -0.5], [0, 0, 1]]), dim=-1))
    wanted = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 1, 0]])
    torch.testing.assert_close(seen[:3], wanted, atol=5e-3, rtol=0)
    assert float(seen[3, 2]) > 0.99


def test_a_panorama_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("words")
    for name, match in (
        ("nowhere.png", "background.path: there is no file"),
        ("words.png", "cannot be read as a picture"),
    ):
        with pytest.raises(UserError, match=match):
            Textured(Textured.Config(path=str(tmp_path / name)), Context())


def test_a_learned_panorama_starts_as_its_environment() -> None:
    made = Textured(Textured.Config(environment="sky", learn=True), Context())
    fixed = Textured(Textured.Config(environment="sky"), Context())
    torch.testing.assert_close(made(DIRECTIONS), fixed(DIRECTIONS))
    up, down = fixed(torch.tensor([[0.0, 0, 1], [0, 0, -1]]))
    assert float(up[2]) > float(up[0]) and float(down.mean()) < float(up.mean())


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


def test_a_random_colour_takes_the_networks_place_in_its_share_of_the_steps() -> None:
    made = Neural(Neural.Config(random=0.4), Context())
    seen = []
    for index in range(200):
        made.update(Step(index, 200, seed=1))
        colours = made(DIRECTIONS)
        seen.append(not colours.requires_grad and bool((colours == colours[0]).all()))
        with torch.no_grad():  # pictures outside training show the background itself
            assert not bool((made(DIRECTIONS) == made(DIRECTIONS)[0]).all())
    assert 60 < sum(seen) < 100
