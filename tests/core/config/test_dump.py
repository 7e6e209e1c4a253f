"""What is written back loads to an equal job."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config.dump import dump_yaml
from core.config.job import Job
from core.config.loading import load_job
from core.config.nodes import parse
from core.registry import Registry

PLAIN = """\
task: lift
prompt: "123"
negative: "null"
tags: [yes, 1e3, "a: b", "#"]
geometry: {type: grid, levels: 8, file: a/b.txt, reach: 3}
renderer: {type: volume, normals: true}
guidance:
  - prior: {type: tiny, model: 007, backup: {type: tiny, model: "~"}}
    weight: {points: {0: 1, 50%: 0.3, 399: 1e-5}}
losses: {sparsity: 0.1, orient: {from: 0, to: 1, start: 10}}
extras: {deep: {a: [1, "1", 1.0, true, "true", null, "null", .inf], 3: "x\\ny"}}
listeners: [note, {type: note, text: no}]
plugins: {require: [toys]}
optimizer: {lr: 1.0e-3, schedule: {from: 1, to: 0.1}}
"""
STAGED = PLAIN + """\
stages:
  - name: coarse
  - {steps: 7, geometry: toys/mlp, gradient_clip: 1}
  - {name: "3", task: fit, rounds: 2}
"""


@pytest.mark.parametrize("text", [PLAIN, PLAIN + "stages: [{name: only}]\n", STAGED.rsplit("\n", 2)[0] + "\n"])
def test_round_trip(load: Callable[..., Job], registry: Registry, folder: Path, text: str) -> None:
    job = load(text, "seed=7")
    written = dump_yaml(job.resolved)
    (folder / "again.yaml").write_text(written, encoding="utf-8")
    again = load_job(folder / "again.yaml", (), registry)
    assert again == job
    assert dump_yaml(again.resolved) == written
    assert load_job(job.resolved, (), registry) == job


def test_every_default_is_written_out(load: Callable[..., Job]) -> None:
    resolved = load(PLAIN).resolved
    assert resolved["optimizer"]["weight_decay"] == 0
    assert resolved["geometry"]["growth"] == 1.5
    assert resolved["guidance"][0]["score"] == {"type": "sds", "scale": 6.0, "noise": {"from": 0.98, "to": 0.02}}
    assert resolved["steps"] == 400
    assert list(resolved)[:2] == ["task", "name"]


def test_stages_share_what_is_equal(load: Callable[..., Job]) -> None:
    resolved = load(STAGED.rsplit("\n", 2)[0] + "\n").resolved
    assert resolved["prompt"] == "123"
    assert "steps" not in resolved
    assert [sorted(s) for s in resolved["stages"]] == [["geometry", "gradient_clip", "name", "steps"]] * 2


def test_stages_may_have_their_own_tasks(registry: Registry) -> None:
    source = {"stages": [{"task": "fit", "rounds": 1}, {"task": "lift", "geometry": "grid", "prompt": "x"}]}
    job = load_job(source, (), registry)
    assert [s.task.name for s in job.stages] == ["fit", "lift"]
    assert load_job(job.resolved, (), registry) == job


TEXTS = ["", "123", "yes", "1e3", "null", "~", "a: b", "#x", "- a", "'", '"', "a\nb", " a ", "[", "{}", "<<", "=", "ü☃", "50%",
         "@x", "&x", "*x", "!x", "|", ">", "%", "`", "? a", "a #b", "\t", "2001-01-01", ".inf", "0x1", "x" * 300]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_texts_stay_texts(text: str) -> None:
    value = {"a": text, "list": [text, "b"], "deep": {"b": text}}
    assert _back(value) == value
    assert yaml.safe_load(dump_yaml(value)) == value  # other tools read the same


@pytest.mark.parametrize("number", [0, -1, 10**20, 0.1, 1e-15, 1e300, -0.0, 1e16, math.inf, -math.inf, 5e-324])
def test_numbers_stay_exact(number: float) -> None:
    found = _back({"a": number})["a"]
    assert found == number
    assert type(found) is type(number)
    assert yaml.safe_load(dump_yaml({"a": number})) == {"a": number}


def test_lists_of_numbers_stand_on_one_line() -> None:
    assert dump_yaml({"a": [1, 2], "b": [{"c": 1}], "d": [], "e": {}}) == "a: [1, 2]\nb:\n  - c: 1\nd: []\ne: {}\n"


def _back(value: dict[str, Any]) -> Any:
    problems: list[str] = []
    node = parse(dump_yaml(value), "x", problems)
    assert problems == []
    assert node is not None
    return node.plain()
