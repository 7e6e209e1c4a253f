"""``preview``: the job's own prior, prompts and scale, sampled from four sides onto one sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.cli import main
from core.cli.preview import asked_priors
from core.config.loading import load_job


def test_the_priors_that_a_job_asks_and_their_scales() -> None:
    def told(preset: str, *words: str) -> list[tuple[str, float]]:
        options = load_job(preset, list(words), extra={"prompt": "a red mug"}).stages[0].task.options
        return [(spec.name, scale) for spec, scale in asked_priors(options)]

    assert told("text-to-3d", "data.scale=6") == [("embedded", 6)]
    assert told("text-to-3d-sds") == [("embedded", 5)]


def test_a_sheet_of_two_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheets = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "5")):
        words = [
            "preview",
            "a red mug",
            "-n",
            "2",
            "--steps",
            "2",
            "--seed",
            seed,
            "--output",
            str(tmp_path / f"{name}.png"),
        ]
        assert main(words) == 0
        sheets.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    assert "8 pictures" in capsys.readouterr().out
    assert sheets[0].shape[1] > sheets[0].shape[0]  # four columns, two rows
    assert (sheets[0] == sheets[1]).all() and not (sheets[0] == sheets[2]).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a red mug", "--config", "embedded-clip"], "prompt: unknown key"),
        (["a red mug", "--output", "sheet.jpg"], "the sheet is a PNG"),
        (["", ], "a text is required"),
        (["a red mug", "nonsense"], "not of the form key=value"),
    ],
)  # fmt: skip
def test_what_cannot_be_previewed(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", *words]) != 0
    assert said in capsys.readouterr().err
