"""Whole runs of a small real task: events, files, stages, stopping, resuming bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pluggy
import pytest
import torch
from safetensors.torch import load_file

from core import checkpoint
from core.errors import NonFiniteLoss, UserError
from core.hookspecs import PROJECT
from core.job import run_job
from core.run import Run

import loop_tasks  # isort: skip
from loop_tasks import Recorder, make_job, registry  # isort: skip

ROOT = Path(__file__).parents[2]


def run_it(folder: Path, *overrides: str, **values: Any) -> Run:
    options = {k: values.pop(k) for k in ("resume", "max_steps", "quiet") if k in values}
    found = registry()
    return run_job(make_job(*overrides, found=found, **values), found, folder=folder, **{"quiet": True} | options)


def again(folder: Path, *overrides: str, **values: Any) -> Run:
    return run_it(folder, *overrides, resume=folder, **values)


def spawn(folder: Path, mode: str, *overrides: str, kill_at: str = "", timeout: float = 60) -> tuple[int, str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "TINY_KILL_AT": kill_at}
    command = [sys.executable, str(Path(loop_tasks.__file__)), str(folder), mode, *overrides]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


def final(folder: Path) -> tuple[dict[str, torch.Tensor], Any, Any]:
    path = checkpoint.list_checkpoints(folder / "checkpoints")[-1]
    optimizer = torch.load(path / "optimizer.pt", weights_only=True)
    state = json.loads((path / "state.json").read_text())
    return load_file(path / "model.safetensors"), optimizer, state


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_end(first: Path, second: Path) -> None:
    """Weights, buffers, moments and position are equal bit for bit; the logged losses too."""
    (tensors, optimizer, state), (others, other_optimizer, other_state) = final(first), final(second)
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert value.numpy().tobytes() == others[name].numpy().tobytes(), name
    flat, other_flat = (torch.utils._pytree.tree_leaves(o) for o in (optimizer, other_optimizer))
    for a, b in zip(flat, other_flat, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert state["step"] == other_state["step"] and state["files"]["model.safetensors"] == \
        other_state["files"]["model.safetensors"]  # fmt: skip
    keep = ("step", "stage", "losses", "metrics", "lr", "grad_norm")
    assert [{k: line[k] for k in keep} for line in lines(first)] == [
        {k: line[k] for k in keep} for line in lines(second)
    ]


def test_a_run_leaves_its_folder_in_order(tmp_path: Path) -> None:
    run = run_it(tmp_path / "run", preview_every=5, checkpoint_every=5, log_every=5, keep=2)
    assert run.state == "finished" and run.current.finished == 1
    assert {p.name for p in run.folder.iterdir()} == {
        "config.yaml", "plugins.json", "metrics.jsonl", "status.json", "checkpoints", "previews", "assets", "code",
    }  # fmt: skip
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == ["step-000010", "step-000012"]
    assert [p.name for p in sorted(run.previews.iterdir())] == [f"step-0000{n}-fit.png" for n in ("05", "10", "12")]
    assert [line["step"] for line in lines(run.folder)] == [5, 10, 12]
    assert set(lines(run.folder)[0]) == {
        "step", "stage", "losses", "metrics", "lr", "grad_norm", "steps_per_second", "memory_mib",
    }  # fmt: skip
    losses = lines(run.folder)[0]["losses"]
    assert losses["total"] == pytest.approx(losses["error"] + losses["weight"])
    status = json.loads((run.folder / "status.json").read_text())
    assert (status["state"], status["step"], status["total"]) == ("finished", 12, 12)
    plugins = json.loads((run.folder / "plugins.json").read_text())
    assert plugins == [{"name": "tiny", "version": "1", "source": "folder", "used": True}]


def test_events_arrive_in_order_after_their_files(tmp_path: Path) -> None:
    run_it(tmp_path / "run", steps=3, preview_every=2, listeners=["recorder"])
    names = ["error", "total", "weight"]
    assert Recorder.heard == [
        ("start",),
        ("step", 1, names),
        ("step", 2, names),
        ("preview", 2, "step-000002-fit.png", True),
        ("step", 3, names),
        ("preview", 3, "step-000003-fit.png", True),
        ("export", "net.txt", "text"),
        ("finish", 3),
    ]


class HookingPlugin:
    """Implements hooks as a plugin's module does, with fewer arguments than specified."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @pluggy.HookimplMarker(PROJECT)
    def on_step(self, step: int) -> None:
        self.heard.append(step)

    @pluggy.HookimplMarker(PROJECT)
    def on_finish(self, run: Run) -> None:
        self.heard.append(run.state)


def test_hooks_of_plugins_are_called(tmp_path: Path) -> None:
    found, plugin = registry(), HookingPlugin()
    found.manager.register(plugin, "hooking")
    run_job(make_job(found=found, steps=2), found, folder=tmp_path / "run", quiet=True)
    assert plugin.heard == [1, 2, "running"]


def test_a_listener_that_fails_is_reported_once_and_harms_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAQUETTE_STRICT", raising=False)
    run = run_it(tmp_path / "run", steps=4, listeners=["clumsy", "recorder"])
    assert run.state == "finished" and len([h for h in Recorder.heard if h[0] == "step"]) == 4
    shown = capsys.readouterr().err
    assert shown.count("clumsy") == 1 and "KeyError: 'spanner'" in shown
    monkeypatch.setenv("MAQUETTE_STRICT", "1")
    with pytest.raises(KeyError, match="spanner"):
        run_it(tmp_path / "strict", steps=4, listeners=["clumsy"])
    assert json.loads((tmp_path / "strict" / "status.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("pause", [0, 1, 5, 7, 11])
def test_stopping_and_resuming_changes_nothing(tmp_path: Path, pause: int) -> None:
    options = {"checkpoint_every": 5, "log_every": 2, "preview_every": 3, "accumulate": 2}
    run_it(tmp_path / "whole", **options)
    stopped = run_it(tmp_path / "parts", max_steps=pause, **options)
    assert stopped.state == "stopped" and stopped.step == pause
    assert again(tmp_path / "parts", **options).state == "finished"
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_sigkill_at_any_step_then_resume_is_bit_identical(tmp_path: Path) -> None:
    """A process killed within a step, resumed from the checkpoint before: the same end, to the last bit."""
    index = int(torch.randint(6, 18, (), generator=torch.Generator().manual_seed(os.getpid())))
    options = ("steps=18", "checkpoint_every=5", "log_every=1", "keep=1")
    code, said = spawn(tmp_path / "killed", "start", *options, kill_at=f"0 {index}")
    assert code == -9, said
    assert json.loads((tmp_path / "killed" / "status.json").read_text())["state"] == "running"
    assert [line["step"] for line in lines(tmp_path / "killed")] == list(range(1, index + 1))
    code, said = spawn(tmp_path / "killed", "resume", *options)
    assert code == 0, said
    run_it(tmp_path / "whole", *options)
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
    assert [line["step"] for line in lines(tmp_path / "killed")] == list(range(1, 19))


STAGES = [{"name": "coarse", "steps": 4}, {"name": "middle", "steps": 3}, {"name": "fine", "steps": 5}]


@pytest.mark.parametrize("pause", [2, 4, 5, 7, 9])
def test_stages_hand_over_and_resume(tmp_path: Path, pause: int) -> None:
    """Each stage starts from the one before, whose end is kept on disk although ``keep`` is 1."""
    options: dict[str, Any] = {"stages": STAGES, "keep": 1, "checkpoint_every": 2, "log_every": 1}
    whole = run_it(tmp_path / "whole", **options)
    names = ["step-000004", "step-000007", "step-000012"]
    assert [p.name for p in checkpoint.list_checkpoints(whole.checkpoints)] == names
    assert [line["stage"] for line in lines(whole.folder)] == [0] * 4 + [1] * 3 + [2] * 5
    run_it(tmp_path / "parts", max_steps=pause, **options)
    assert again(tmp_path / "parts", **options).current.finished == 1
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_stage_starts_from_the_one_before(tmp_path: Path) -> None:
    job = {"stages": [{"name": "a", "steps": 6}, {"name": "b", "steps": 1, "optimizer": {"lr": 1e-30}}]}
    run = run_it(tmp_path / "run", **job)
    first = load_file(run.checkpoints / "step-000006" / "model.safetensors")
    second = load_file(run.checkpoints / "step-000007" / "model.safetensors")
    assert torch.equal(first["net.0.weight"], second["net.0.weight"])
    assert "previous" not in run.current.context.parts


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_evidence(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss) as caught:
        run_it(tmp_path / "run", checkpoint_every=5, nan_at=7)
    message = str(caught.value)
    evidence = tmp_path / "run" / "checkpoints" / "nonfinite-000007"
    assert "step 7: loss 'error' is nan" in message and "stage 'main'" in message and str(evidence) in message
    assert f"--resume {tmp_path / 'run'}" in message and "'weight'" not in message
    position = checkpoint.read_position(evidence)
    assert (position.step, position.index) == (7, 7) and "nan" in position.note
    run_it(tmp_path / "clean", max_steps=7)
    kept = load_file(evidence / "model.safetensors")
    clean = final(tmp_path / "clean")[0]
    assert all(torch.equal(kept[n], clean[n]) for n in clean if n.startswith("net"))
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed" and "NonFiniteLoss" in status["message"]
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000005"]
    run = again(tmp_path / "run", "optimizer.lr=0.001", checkpoint_every=5, nan_at=7, max_steps=2)
    assert run.state == "stopped" and run.step == 7


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    listeners = [{"type": "once", "step": 3, "action": name}]
    run = run_it(tmp_path / "run", listeners=listeners, quiet=False)
    assert run.state == "stopped" and run.step == 3
    assert checkpoint.read_position(run.newest()).step == 3
    assert f"resume with: python launch.py resume {run.folder}" in capsys.readouterr().out
    assert again(run.folder).state == "finished"
    run_it(tmp_path / "whole")
    assert_same_end(tmp_path / "whole", run.folder)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listeners = [{"type": "once", "step": 8, "action": "SIGINT SIGINT"}]
    run = run_it(tmp_path / "run", listeners=listeners, checkpoint_every=5, quiet=False)
    assert run.state == "stopped" and "within a step" in run.message
    assert checkpoint.read_position(run.newest()).step == 5
    assert "from the last checkpoint" in capsys.readouterr().out


def test_a_listener_may_stop_the_run(tmp_path: Path) -> None:
    run = run_it(tmp_path / "run", listeners=[{"type": "once", "step": 4, "action": "stop"}])
    assert (run.state, run.step, run.message) == ("stopped", 4, "seen enough")


def refusal(folder: Path, *overrides: str, **values: Any) -> str:
    with pytest.raises(UserError) as caught:
        again(folder, *overrides, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_resume_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert "is not a run" in refusal(tmp_path)
    run_it(folder, max_steps=6, stages=STAGES)
    assert "'stages.0.width' was 16, is now 8" in refusal(folder, width=8, stages=STAGES)
    assert "'stages.0.seed' was 0, is now 1" in refusal(folder, seed=1, stages=STAGES)
    longer = [STAGES[0] | {"steps": 5}, *STAGES[1:]]
    assert "'steps' of a stage before 'middle' changed" in refusal(folder, stages=longer)
    shorter = [STAGES[0], STAGES[1] | {"steps": 1}, STAGES[2]]
    assert "has taken 2 steps" in refusal(folder, stages=shorter)
    assert json.loads((folder / "status.json").read_text())["step"] == 6
    assert again(folder, stages=STAGES).state == "finished"
    assert "is finished, all 12 steps" in refusal(folder, stages=STAGES)
    with pytest.raises(UserError, match="is not empty"):
        run_it(folder)


def test_what_a_resume_lets_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_it(tmp_path / "run")
    run = again(tmp_path / "run", "optimizer.lr=0.5", "log_every=3", steps=14)
    assert run.state == "finished" and run.step == 14
    said = capsys.readouterr().err
    assert "'steps' was 12, is now 14" in said and "'optimizer.lr' was 0.01, is now 0.5" in said
    assert "log_every" not in said
    assert lines(run.folder)[-1]["lr"] == 0.5


def test_plugins_of_a_run_that_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    run_it(folder, max_steps=3)
    found = registry(version="2")
    run_job(make_job(found=found), found, resume=folder, quiet=True, max_steps=3)
    assert "plugin tiny was version 1, is now 2" in capsys.readouterr().err
    recorded = json.loads((folder / "plugins.json").read_text())
    recorded += [{"name": "idle", "version": "1", "source": "folder", "used": False}]
    (folder / "plugins.json").write_text(json.dumps(recorded))
    again(folder, max_steps=1)
    recorded[-1]["used"] = True
    (folder / "plugins.json").write_text(json.dumps(recorded))
    assert "plugins that are not loaded now: idle" in refusal(folder)


def test_resume_from_an_older_checkpoint_outdates_the_newer(tmp_path: Path) -> None:
    options = {"checkpoint_every": 4, "keep": 9, "log_every": 1}
    run = run_it(tmp_path / "run", max_steps=9, **options)
    older = run.checkpoints / "step-000004"
    found = registry()
    run_job(make_job(found=found, **options), found, resume=older, quiet=True)
    assert [line["step"] for line in lines(run.folder)] == list(range(1, 13))
    assert (run.checkpoints / "old-step-000008").is_dir()
    run_it(tmp_path / "whole", **options)
    assert_same_end(tmp_path / "whole", run.folder)


def test_a_damaged_newest_checkpoint_names_the_one_to_use(tmp_path: Path) -> None:
    run = run_it(tmp_path / "run", max_steps=9, checkpoint_every=4)
    (run.newest() / "model.safetensors").write_bytes(b"")
    message = refusal(run.folder, checkpoint_every=4)
    assert "step-000009" in message and f"newest usable checkpoint is {run.checkpoints / 'step-000008'}" in message


def test_two_devices_do_what_one_does_with_twice_the_accumulation(tmp_path: Path) -> None:
    options = ("steps=4", "checkpoint_every=2")
    code, said = spawn(tmp_path / "two", "start", *options, "devices=2")
    assert code == 0, said
    run_it(tmp_path / "one", *options, accumulate=2)
    two, one = final(tmp_path / "two")[0], final(tmp_path / "one")[0]
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=0)
    assert len(lines(tmp_path / "two")) == 1  # the second process writes nothing
    assert lines(tmp_path / "two")[0]["losses"] == pytest.approx(lines(tmp_path / "one")[0]["losses"], abs=1e-5)


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_it(tmp_path / "run", quiet=False)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("main 1/12  loss ") and out[1].startswith("main 12/12  loss ")
    assert "error" in out[1] and "noise" in out[1] and "left" in out[1]
    run_it(tmp_path / "quiet")
    assert capsys.readouterr().out == ""
