"""``eval image``: which ways there are, which objects are asked for, and what is compared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError
from plugins.metrics import eval_image
from plugins.metrics.eval_image import COLUMNS, evaluate, generator_of, mean
from plugins.metrics.folders import read_yaml
from plugins.metrics.given import given_objects


def written(folder: Path, **values: object) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_a_run_is_a_way_by_the_preset_of_its_generator(tmp_path: Path) -> None:
    run = written(tmp_path / "a", task="viewset", data={"categories": ["mug", "chair"]})
    assert generator_of(run) == ("viewset", {"mug", "chair"})
    assert generator_of(written(tmp_path / "b", task="gsd", data={"categories": None})) == ("gsd", None)


@pytest.mark.parametrize("task", ["lion", "lift", "no-such-task", None])
def test_runs_that_make_nothing_of_a_picture_are_refused(task: str | None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no preset makes an object of a picture"):
        generator_of(written(tmp_path / "a", task=task))


def test_objects_are_of_the_kinds_that_all_runs_know(tmp_path: Path) -> None:
    known = given_objects(None, 0, {"mug", "rocket"})
    assert {one.label.split()[-1] for one in known} == {"mug", "rocket"} and len(known) >= 3
    assert len(given_objects(None, 0)) == 16
    runs = [written(tmp_path / kind, task="viewset", data={"categories": [kind]}) for kind in ("mug", "chair")]
    with pytest.raises(UserError, match="no object"):
        evaluate(run=runs)


def test_a_way_is_measured_against_the_true_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The true views in the way's place would be without error, so figures of a job of two steps must be finite, and
    those of the given view better than those of others."""
    found = evaluate(
        way=["input-view-only"], objects=1, output=tmp_path,
        option=["steps=30", "geometry.levels=4", "renderer.samples=24", "renderer.grid=24", "data.size=32"],
    )  # fmt: skip
    (row,) = found["rows"]
    assert set(COLUMNS) <= set(row) and all(math.isfinite(row[c]) for c in COLUMNS)
    assert row["input_psnr"] > row["psnr"] > 8 and 0 < row["mask_iou"] <= 1 and row["peak_memory_mib"] > 100
    assert found["totals"]["input-view-only"]["psnr"] == row["psnr"]
    assert "purple mug" in capsys.readouterr().out and (tmp_path / "input-view-only.png").is_file()


def test_means_are_of_figures_and_the_peak_is_the_largest() -> None:
    rows = [dict.fromkeys(COLUMNS, 1.0), dict.fromkeys(COLUMNS, 3.0)]
    assert mean(rows)["psnr"] == 2.0 and mean(rows)["peak_memory_mib"] == 3.0


def test_ways_are_sound_and_the_plain_caption_is_realfusion_without_its_word() -> None:
    ways = read_yaml(Path(eval_image.__file__).with_name("image.yaml"))["ways"]
    jobs = {
        name: load_job(
            way["config"], way.get("options", []), get_registry(),
            {"image": "a.png"} | ({"prompt": "a red mug"} if way.get("caption") else {}),
        ).stages[-1].task.options.model_dump()
        for name, way in ways.items()
    }  # fmt: skip
    plain, learned = jobs["plain-caption"], jobs["realfusion"]
    assert plain["prompt"] == "a red mug" and "<object>" in learned["prompt"]
    assert {k for k in plain if plain[k] != learned[k]} <= {"prompt", "guidance", "steps", "name"}
    for one in (plain["guidance"], learned["guidance"]):
        one[0]["prior"]["options"].pop("embeddings", None)  # where the word is kept
    assert plain["guidance"] == learned["guidance"]
