"""Helpers of the evaluation, and the shipped list of prompts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.testing import check_component
from plugins.metrics import eval_text
from plugins.metrics.eval_text import read_prompts, total
from plugins.metrics.folders import fresh, machine, save_views

ROWS = [
    {"prompt": "a", "group": "seen", "category": 1.0, "color": 0.0, "r_precision": 1.0, "janus": 0.0, "seconds": 10.0},
    {"prompt": "b", "group": "seen", "category": 0.0, "r_precision": 1.0, "janus": 1.0, "seconds": 20.0},
    {
        "prompt": "c",
        "group": "held_out",
        "category": 1.0,
        "color": 1.0,
        "r_precision": 0.0,
        "janus": 0.0,
        "seconds": 60.0,
    },
]


def test_the_command_keeps_its_contract() -> None:
    assert check_component("command", "eval-text")


def test_means_count_only_what_was_measured() -> None:
    every = total(ROWS, None)
    assert every == pytest.approx(
        {"prompts": 3, "category": 2 / 3, "color": 0.5, "r_precision": 2 / 3, "janus": 1 / 3, "seconds": 30.0}
    )
    held = total(ROWS, "held_out")
    assert (held["prompts"], held["color"], held["seconds"]) == (1, 1.0, 60.0)
    none = total(ROWS, "elsewhere")
    assert none["prompts"] == 0 and math.isnan(none["category"])
    assert math.isnan(total(ROWS[1:2], None)["color"])


def test_the_shipped_list_has_twenty_prompts_of_both_kinds() -> None:
    lists = read_prompts(Path(eval_text.__file__).with_name("prompts.yaml"))
    assert set(lists) == {"seen", "held_out"}
    texts = [t for group in lists.values() for t in group]
    assert len(texts) == len(set(texts)) >= 20 and "a standing corgi dog" in lists["seen"]


def test_pairs_called_held_out_are_held_out_and_the_others_are_not() -> None:
    from plugins.embedded.classifier import Classifier
    from plugins.procedural.data import ProceduralData
    from plugins.procedural.splits import is_held_out

    judge = Classifier(ProceduralData.nouns, list(ProceduralData.color_names), width=8)
    for group, texts in read_prompts(Path(eval_text.__file__).with_name("prompts.yaml")).items():
        for text in texts:
            category, color = judge.expected(text)
            assert category is not None, text
            held = color is not None and is_held_out(judge.categories[category], judge.colors[color])
            assert held == (group == "held_out"), text


@pytest.mark.parametrize("text", ["- a\n- b\n", "seen: a red mug\n", "seen: [a\n", ""])
def test_a_file_that_holds_no_lists_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=r"p\.yaml") as caught:
        read_prompts(tmp_path / "p.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(tmp_path / "none.yaml")


def test_a_folder_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    folder = tmp_path / "a-red-mug"
    assert fresh(folder) == folder
    folder.mkdir()
    assert fresh(folder).name == "a-red-mug-2"
    (tmp_path / "a-red-mug-2").mkdir()
    assert fresh(folder).name == "a-red-mug-3"


def test_views_are_saved_as_one_row(tmp_path: Path) -> None:
    views = torch.zeros(3, 4, 5, 3)
    views[1] = 1.0
    views[2, ..., 0] = 2.0  # clipped
    save_views(views, tmp_path / "deep" / "row.png")
    with Image.open(tmp_path / "deep" / "row.png") as picture:
        assert picture.size == (15, 4)
        assert [picture.getpixel((x, 0)) for x in (0, 5, 10)] == [(0, 0, 0), (255, 255, 255), (255, 0, 0)]


def test_the_machine_is_named() -> None:
    assert torch.__version__ in machine() and "cores" in machine()


def test_the_judge_reads_true_renders_of_what_a_prompt_names() -> None:
    from core.contracts import Context
    from plugins.embedded.judge import Judge

    found = eval_text.true_renders("a blue chair", [Judge(Judge.Config(), Context())], count=2)
    assert found["category"] == 1.0 and found["color"] == 1.0 and "seconds" not in found
    other = eval_text.true_renders("something else", [Judge(Judge.Config(), Context())])
    assert other == {}
