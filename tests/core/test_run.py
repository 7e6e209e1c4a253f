"""A run's folder, its status lines, and the way back to the task of a finished run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from core.errors import UserError
from core.job import run_job
from core.listeners import Events, PlainLines, StatusLine, truncate_metrics
from core.resume import differences
from core.run import Run, RunProgress, new_folder, open_run, peak_memory, slug

from loop_tasks import make_job, registry  # isort: skip


def fresh(folder: Path) -> Run:
    found = registry()
    return Run(folder, make_job(found=found), found)


def test_folders_of_one_second_do_not_collide(tmp_path: Path) -> None:
    made = [new_folder(tmp_path / "runs", "a cat: sitting/..") for _ in range(3)]
    assert len({f.name for f in made}) == 3 and all(f.is_dir() and f.parent == tmp_path / "runs" for f in made)
    assert all(f.name.startswith("a-cat-sitting-") for f in made)
    assert made[1].name in (f"{made[0].name}-2", made[1].name) and slug("../..") == "run"


def test_default_folder_comes_from_the_job(tmp_path: Path) -> None:
    found = registry()
    run = run_job(make_job(found=found, output=str(tmp_path / "runs"), steps=1), found, quiet=True)
    assert run.folder.parent == tmp_path / "runs" and run.folder.name.startswith("tiny-")


def test_a_finished_run_gives_its_task_back(tmp_path: Path) -> None:
    found = registry()
    stages = [{"name": "a", "steps": 3}, {"name": "b", "steps": 4}]
    job = make_job(found=found, stages=stages, width=5)
    done = run_job(job, found, folder=tmp_path / "run", quiet=True)
    run = open_run(done.folder, found)
    assert (run.state, run.step, run.progress.total) == ("finished", 7, 7)
    task = run.task()
    assert run.task() is task and task is not done.current and task.options.width == 5
    for name, value in done.current.state_dict().items():
        assert torch.equal(value, task.state_dict()[name])
    first = run.task(run.checkpoints / "step-000003")
    assert not torch.equal(first.net[0].weight, task.net[0].weight) and run.task() is task
    assert run.job.resolved == job.resolved
    with pytest.raises(UserError, match="is not a run"):
        open_run(tmp_path, found)


def test_a_run_without_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no checkpoint yet"):
        fresh(tmp_path).task()


def test_previews_are_pictures(tmp_path: Path) -> None:
    run = fresh(tmp_path)
    run.progress.step = 42
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    path = run.write_preview("a view", pixels)
    assert path == tmp_path / "previews" / "step-000042-a-view.png"
    assert np.array_equal(np.asarray(Image.open(path)), pixels)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    for bad in (pixels[..., 0], pixels.astype(np.float32), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(UserError, match="preview 'bad' is .* not uint8"):
            run.write_preview("bad", bad)


def test_a_process_that_is_not_the_main_one_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = registry()
    run = Run(tmp_path, make_job(found=found), found, main=False)
    run.say("hello"), run.warn("careful"), run.log(x=1), run.set_status("running")
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []


def test_metrics_are_cut_where_the_checkpoint_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert truncate_metrics(path, 5) == 0 and not path.exists()
    path.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(1, 9)) + '{"step": 3, "lo')
    assert truncate_metrics(path, 5) == 4
    assert path.read_text() == "".join(f'{{"step": {n}}}\n' for n in range(1, 6))


def test_pace_and_description() -> None:
    now = RunProgress(step=30, total=130, losses={"total": 0.25, "a": 0.125, "b": 0.125}, metrics={"level": 3})
    assert now.pace == 0.0 and now.describe().startswith("loss 0.25  a 0.125  b 0.125  level 3")
    now._times.extend(0.5 * n for n in range(4))
    assert now.pace == pytest.approx(2.0) and "2 it/s  0:50 left" in now.describe()
    now._times.clear()
    now._times.extend(4.0 * n for n in range(40))
    now.total = 2000
    assert "4 s/it  2:11:20 left" in now.describe()


def test_peak_memory_of_this_process() -> None:
    memory = peak_memory(torch.device("cpu"))
    assert memory is None or 50 < memory < 1e6


class Counting:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_step(self, step: int) -> None:
        self.calls.append(step)
        if step == 2:
            raise ValueError("two")

    def close(self) -> None:
        self.calls.append("closed")
        raise OSError("still open")


def test_events_pass_what_is_accepted_and_report_each_failure_once() -> None:
    said: list[str] = []
    first, second = Counting(), Counting()
    events = Events(None, [("first", first), ("second", second)], said.append, strict=False)
    for step in (1, 2, 2, 3):
        events.emit("on_step", run=None, step=step, losses={})
    events.emit("on_finish", run=None)
    events.close()
    assert first.calls == second.calls == [1, 2, 2, 3, "closed"]
    assert said[:2] == [f"{n} (on_step) failed and is ignored: ValueError: two" for n in ("first", "second")]
    assert len(said) == 4
    with pytest.raises(ValueError, match="two"):
        Events(None, [("first", first)], said.append, strict=True).emit("on_step", step=2)


def test_the_live_line_shows_steps_and_loss(tmp_path: Path) -> None:
    run = fresh(tmp_path)
    out = io.StringIO()
    run.console = Console(file=out, force_terminal=True, width=120, markup=False)
    line = StatusLine()
    run.progress = RunProgress(stage_name="fine", total=2)
    line.on_start(run)
    for step in (1, 2):
        run.progress.step, run.progress.losses = step, {"total": 0.5}
        line.on_step(run, step)
    line.on_export(run, tmp_path / "cup.glb", "glb")
    line.close()
    line.close()
    shown = out.getvalue()
    assert "fine" in shown and "2/2  loss 0.5" in shown and "cup.glb" in shown


def test_plain_lines_are_seconds_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fresh(tmp_path)
    run.progress = RunProgress(stage_name="main", total=100, stage_end=100)
    lines = PlainLines(seconds=1e6)
    for step in range(1, 101):
        lines.on_step(run, step)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/100", "100/100"]


def test_differences_between_two_configurations() -> None:
    old = {"a": {"b": 1, "c": [1, {"d": 2}]}, "gone": 3}
    new = {"a": {"b": 1, "c": [1, {"d": 5}]}, "here": [1]}
    assert differences(old, new) == [("a.c.1.d", 2, 5), ("gone", 3, None), ("here", None, [1])]
    assert differences([1, 2], [1]) == [("", [1, 2], [1])] and differences(old, old) == []
