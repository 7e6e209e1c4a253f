"""Checkpoints: what goes in comes out bit for bit, and a bad one is refused in one clear sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core import checkpoint
from core.checkpoint import Position
from core.errors import UserError


class Assorted(nn.Module):
    """Tied weights, a slice, a transposed buffer, every usual type, and state that is no tensor."""

    def __init__(self, seed: int = 0, extra: Any = None) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(3, 4, bias=False)
        self.second.weight = self.first.weight
        big = torch.randn(10, 6, generator=g)
        with torch.no_grad():
            self.first.weight.copy_(big[:4, :3])
        self.register_buffer("part", big[2:5])
        self.register_buffer("transposed", big.t())
        self.register_buffer("wide", torch.randn(2, generator=g, dtype=torch.float64))
        self.register_buffer("narrow", torch.randn(5, generator=g).bfloat16())
        self.register_buffer("count", torch.randint(1 << 40, (), generator=g))
        self.register_buffer("mask", torch.rand(9, generator=g) > 0.5)
        self.register_buffer("nothing", torch.zeros(0, 3))
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def write(folder: Path, step: int, module: nn.Module | None = None) -> Path:
    module = module or nn.Linear(2, 2)
    return checkpoint.save(folder / checkpoint.name_of(step), module, Position(step), {"moment": torch.ones(3)})


def refusal(path: Path, module: nn.Module | None = None) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load(path, module or nn.Linear(2, 2))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    saved = Assorted(1, extra={"level": 3, "names": ["a"]})
    path = checkpoint.save(tmp_path / "step-000007", saved, Position(7, 1, 3, 20, 5), {"a": [torch.arange(3), 2.5]})
    other = Assorted(2)
    position, optimizer = checkpoint.load(path, other)
    for name, value in saved.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other.state_dict()[name]), name
            assert value.dtype == other.state_dict()[name].dtype
    assert other.extra == {"level": 3, "names": ["a"]}
    assert other.second.weight is other.first.weight
    assert (position.step, position.stage, position.index, position.total, position.seed) == (7, 1, 3, 20, 5)
    assert torch.equal(optimizer["a"][0], torch.arange(3)) and optimizer["a"][1] == 2.5


def test_state_that_is_neither_tensor_nor_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="_extra_state"):
        checkpoint.save(tmp_path / "step-000001", Assorted(extra={1, 2}), Position(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("culprit", ["save_file", "torch.save", "replace"])
def test_a_crash_while_writing_leaves_the_older_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, culprit: str
) -> None:
    write(tmp_path, 1)

    def half(*args: Any, **kwargs: Any) -> None:
        for arg in args:
            if isinstance(arg, Path) and culprit != "replace":
                arg.write_bytes(b"half of it")
        raise OSError("no space left on device")

    owner: Any = {"save_file": checkpoint, "torch.save": torch, "replace": Path}[culprit]
    with monkeypatch.context() as patch:
        patch.setattr(owner, culprit.rpartition(".")[2], half)
        with pytest.raises(OSError, match="no space"):
            write(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]
    checkpoint.load(tmp_path / "step-000001", nn.Linear(2, 2))


def test_what_a_killed_write_left_is_never_seen_and_swept(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / ".step-000006.99.tmp").mkdir()
    (tmp_path / ".step-000006.99.tmp" / "model.safetensors").write_bytes(b"half")
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["step-000003"]
    checkpoint.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000003"]


def test_saving_again_replaces(tmp_path: Path) -> None:
    write(tmp_path, 3)
    module = nn.Linear(2, 2)
    write(tmp_path, 3, module)
    loaded = nn.Linear(2, 2)
    checkpoint.load(tmp_path / "step-000003", loaded)
    assert torch.equal(loaded.weight, module.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000003"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_damage_is_named_with_the_newest_usable_checkpoint(tmp_path: Path, name: str, damage: str) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    for step in (2, 3):
        file = tmp_path / checkpoint.name_of(step) / name
        content = bytearray(file.read_bytes())
        if damage == "remove":
            file.unlink()
        else:
            content[-1] ^= 1
            file.write_bytes(content if damage == "flip" else content[:-1])
    message = refusal(tmp_path / "step-000003")
    assert str(tmp_path / "step-000003" / name) in message
    assert f"newest usable checkpoint is {tmp_path / 'step-000001'}" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot be read"), ('{"format": 99}', "format 99"), ("[]", "format None"), ('{"format": 1}', "incomplete"),
     ('{"format": 1, "files": {}, "step": 1}', "incomplete"), ('{"format": 1, "files": {}, "hat": 1}', "incomplete")],
)  # fmt: skip
def test_a_state_file_that_is_not_ours(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, 1)
    (path / "state.json").write_text(text)
    message = refusal(path)
    assert str(path / "state.json") in message and said in message and "no other usable" in message


class Bomb:
    """Would leave a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_loading_never_runs_what_is_pickled(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    trace = tmp_path / "trace"
    for dump in (lambda f: torch.save({"x": Bomb(trace)}, f), lambda f: f.write_bytes(pickle.dumps(Bomb(trace), 2))):
        dump(path / "optimizer.pt")
        state = json.loads((path / "state.json").read_text())
        state["files"]["optimizer.pt"] = checkpoint._fingerprint(path / "optimizer.pt")
        (path / "state.json").write_text(json.dumps(state))
        assert "cannot be read" in refusal(path)
        assert not trace.exists()


def test_another_shape_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    message = refusal(path, nn.Linear(2, 3))
    assert "does not fit this configuration" in message and "size mismatch for weight" in message
    assert "Missing key" in refusal(path, nn.Sequential(nn.Linear(2, 2)))


def test_prune_keeps_the_newest_and_the_spared(tmp_path: Path) -> None:
    for step in (1, 2, 3, 999_999, 1_000_000):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, 0)
    assert len(checkpoint.list_checkpoints(tmp_path)) == 5
    checkpoint.prune(tmp_path, 2, {"step-000002"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002", "step-1000000", "step-999999"]
    assert checkpoint.list_checkpoints(tmp_path)[-1].name == "step-1000000"


def test_setting_aside_what_a_resume_outdates(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    checkpoint.set_aside(tmp_path, 2)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["step-000001", "step-000002"]
    assert (tmp_path / "old-step-000003").is_dir()


def test_write_atomic_leaves_the_old_text_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    checkpoint.write_atomic(path, "old")

    def fail(*args: Any) -> None:
        raise OSError("killed")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        checkpoint.write_atomic(path, "new")
    assert path.read_text() == "old"
