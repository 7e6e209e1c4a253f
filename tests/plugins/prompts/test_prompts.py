"""What each view hears."""

from __future__ import annotations

import math

import pytest
import torch

from core.contracts import Context
from core.testing import check_component
from core.types import Cameras
from plugins.prompts.same import Same
from plugins.prompts.view_words import ViewWords


def views(*degrees: tuple[float, float]) -> Cameras:
    a, e = torch.tensor(degrees, dtype=torch.float64).deg2rad().unbind(-1)
    return Cameras.orbit(a, e, torch.full_like(a, 3.0), torch.full_like(a, 0.7), 8, 8)


def words(*degrees: tuple[float, float], **options: float) -> list[str]:
    return ViewWords(ViewWords.Config(**options), Context()).texts("a cat, sitting", views(*degrees))


@pytest.mark.parametrize("name", ["same", "view-words"])
def test_every_processor_keeps_its_contract(name: str) -> None:
    assert len(check_component("prompt", name)) >= 7


def test_the_same_sentence_for_everyone() -> None:
    assert Same(None, Context()).texts("a cat", views((0, 0), (90, 0), (0, 80))) == ["a cat"] * 3


def test_sides_have_words() -> None:
    found = words((0, 0), (40, 10), (-40, 10), (90, 0), (-90, 0), (180, 0), (-140, 0), (140, 20), (10, 70), (180, 89))
    sides = ["front"] * 3 + ["side"] * 2 + ["back"] * 3 + ["overhead"] * 2
    assert found == [f"a cat, sitting, {side} view" for side in sides]


@pytest.mark.parametrize(
    ("azimuth", "side"),
    [(44.9, "front"), (45.1, "side"), (134.9, "side"), (135.1, "back"), (-44.9, "front"), (-134.9, "side"),
     (-135.1, "back"), (359.0, "front"), (-359.0, "front"), (540.0, "back")],
)  # fmt: skip
def test_borders_between_sides(azimuth: float, side: str) -> None:
    assert words((azimuth, 0)) == [f"a cat, sitting, {side} view"]


def test_sectors_can_be_narrower_and_the_pole_wider() -> None:
    assert words((40, 0), (150, 0), (0, 50), front=20.0, overhead=45.0) == [
        f"a cat, sitting, {side} view" for side in ("side", "side", "overhead")
    ]


def test_the_words_are_those_of_the_captions_the_prior_was_trained_on() -> None:
    """The prior learned view words from the data's own function; both must agree on every view."""
    from plugins.procedural.captions import view_word

    processor = ViewWords(ViewWords.Config(), Context())
    for azimuth in range(-180, 361, 15):
        for elevation in (-10.0, 20.0, 59.0, 60.0, 61.0, 85.0):
            wanted = view_word(float(azimuth), elevation)
            assert f"{processor.word(float(azimuth), elevation)} view" == wanted, (azimuth, elevation)


def test_straight_down_is_overhead_whatever_the_azimuth() -> None:
    for azimuth in (0.0, math.degrees(1.0), 180.0):
        assert words((azimuth, 90.0)) == ["a cat, sitting, overhead view"]


def test_perp_neg_moves_away_from_the_opposite_side_and_fades_towards_the_side() -> None:
    cameras = views((0, 0), (60, 0), (90, 0), (120, 10), (180, 0))
    assert ViewWords(ViewWords.Config(), Context()).away("a cat", cameras) == []
    front, back = ViewWords(ViewWords.Config(perp_neg=2.0), Context()).away("a cat", cameras)
    assert front[0] == ["a cat, front view"] * 5 and back[0] == ["a cat, back view"] * 5
    torch.testing.assert_close(front[1].float(), torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0]))
    torch.testing.assert_close(back[1].float(), torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0]))
    assert Same(None, Context()).away("a cat", cameras) == []
