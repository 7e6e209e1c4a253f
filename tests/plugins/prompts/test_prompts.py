"""What each view hears."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.contracts import Context
from core.errors import UserError
from core.testing import check_component
from core.types import Cameras
from plugins.prompts.debiased import DebiasedViewWords
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


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random masked language model."""
    import transformers

    folder = tmp_path_factory.mktemp("bert")
    sentence = "this image is depicting a view of smiling cat front side back overhead"
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sentence.split()]
    (folder / "vocab.txt").write_text("\n".join(known))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.BertConfig(vocab_size=len(known), initializer_range=1.0, **sizes)
        transformers.BertForMaskedLM(config).eval().save_pretrained(folder)
    return folder


def debiased(**options: Any) -> DebiasedViewWords:
    return DebiasedViewWords(DebiasedViewWords.Config(**options), Context())


def test_sides_are_as_likely_as_the_language_model_says(language: Path) -> None:
    from transformers import BertForMaskedLM

    found = debiased(model=str(language)).likelihood(["a smiling cat", "cat"])
    model = BertForMaskedLM.from_pretrained(language).eval()
    for row, words in zip(found, ([9, 12, 13], [13]), strict=True):  # by number: a smiling cat
        ids = torch.tensor([[2, 5, 6, 7, 8, 9, 4, 10, 11, *words, 3]])
        with torch.no_grad():
            exact = model(ids).logits[0, 6, [14, 15, 16, 17]].softmax(-1)
        torch.testing.assert_close(row, exact, rtol=1e-4, atol=1e-6)


def test_words_that_speak_against_a_side_are_not_said_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """``smiling`` makes the back a third as likely, and the side a little less than without it."""
    table = {"smiling": [2.0, 0.96, 1 / 3, 1.0], "cat": [1.0, 1.0, 0.9, 1.0]}

    def likelihood(self: Any, prompts: list[str]) -> torch.Tensor:
        rows = [torch.tensor([v for w, v in table.items() if w in p.split()] + [[1.0] * 4]).prod(0) for p in prompts]
        return torch.stack(rows)

    monkeypatch.setattr(DebiasedViewWords, "likelihood", likelihood)
    cameras = views((0, 0), (90, 0), (180, 0), (0, 80))
    plain = [f"a smiling cat, {side} view" for side in ("front", "side", "back", "overhead")]
    assert debiased(words=["Smiling"]).texts("a smiling cat", cameras) == [
        plain[0], plain[1], "a cat, back view", plain[3]
    ]  # fmt: skip
    assert debiased().texts("a smiling cat", cameras)[2] == "a, back view"
    assert debiased(threshold=0.3).texts("a smiling cat", cameras) == plain
    (_, (back, _)) = debiased(words=["smiling"], perp_neg=1).away("a smiling cat", cameras[:1])
    assert back == ["a cat, back view"]


def test_a_model_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        debiased(model=str(tmp_path / "nowhere")).texts("a smiling cat", views((0, 0)))
