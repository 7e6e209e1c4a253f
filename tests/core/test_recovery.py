"""When memory runs out in a step: the load is lowered, nothing is lost, and the smallest load is the end of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.checkpoint import list_checkpoints
from core.config.job import OptimizerConfig
from core.config.loading import load_job
from core.contracts import Context, Step, Task
from core.discovery import get_registry
from core.errors import UserError
from core.job import make_fabric, run_job
from core.loop import Loop
from core.recovery import out_of_memory, take_lighter
from plugins.cameras.random_cameras import RandomCameras
from plugins.nerf.hash_grid import HashGrid

from loop_tasks import make_job  # isort: skip
from tiny_pipeline import write_pipeline  # isort: skip

CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


class Narrow(Task):
    """Fits a line to cameras; from step 3 on more than ``most`` views are too many."""

    def __init__(self, batch: int, most: int, orbit: int = 1) -> None:
        super().__init__(None, Context())
        self.net, self.most, self.updates = nn.Linear(3, 1).double(), most, 0
        nn.init.constant_(self.net.weight, 0.3)
        nn.init.zeros_(self.net.bias)
        self.data = RandomCameras(RandomCameras.Config(batch=batch, orbit=orbit), Context())

    def update(self, step: Step) -> None:
        self.updates += 1

    def training_step(self, step: Step) -> dict[str, Tensor]:
        position = self.data.batch(step)["cameras"].position.double()
        error = (self.net(position)[:, 0] - position[:, 0] * position[:, 1]).square().mean()
        if step.index >= 3 and len(position) > self.most and (step.micro or len(position) > 4):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return {"error": error}


def looped(task: Task, accumulate: int = 1) -> Loop:
    return Loop(make_fabric(make_job().config), task, OptimizerConfig(lr=0.02), 8, accumulate=accumulate)


def test_the_step_is_taken_again_with_fewer_rows_and_nothing_is_lost() -> None:
    """8 views, then 4 (where the second micro-batch fails), then 2: as a run with that load from that step on."""
    task, said = Narrow(8, 2), []
    loop = looped(task)
    reports = [take_lighter(loop, index, said.append, pytest.fail) for index in range(8)]
    wanted = Narrow(8, 8)
    other = looped(wanted)
    for index in range(8):
        if index == 3:
            wanted.data = RandomCameras(RandomCameras.Config(batch=2), Context())
            other.accumulate = 4
        report = other.take(index)
        assert (report.losses, report.grad_norm) == (reports[index].losses, reports[index].grad_norm)
    for p, q in zip(task.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(p, q)
    assert task.updates == 8 and loop.accumulate == 4
    assert (
        said
        == [
            "memory ran out at step 3: 1 in 2 of the rows at once, in 2 times as many micro-batches; going on from that step"
        ]
        * 2
    )


def test_sets_of_views_stay_whole() -> None:
    batches, data = [], RandomCameras(RandomCameras.Config(batch=24, orbit=4), Context())
    while (factor := data.split()) > 1:
        batches.append((factor, data.options.batch))
    assert batches == [(2, 12), (3, 4)] and len(data.batch(Step(0, 1))["cameras"]) == 4


def test_the_smallest_load_is_the_end_and_is_saved() -> None:
    saved: list[int] = []
    loop = looped(Narrow(8, 0))
    for index in range(3):
        loop.take(index)
    loop.task.most = -1  # type: ignore[assignment]
    loop.task.training_step = always_full  # type: ignore[method-assign]
    before = [p.clone() for p in loop.task.parameters()]
    with pytest.raises(
        UserError, match="step 3: memory ran out and the load cannot be lowered further .*vram=8gb"
    ) as told:
        take_lighter(loop, 3, lambda _: None, lambda: saved.append(1))
    assert len(str(told.value).splitlines()) == 1 and saved == [1]
    assert all(torch.equal(p, q) and q.grad is None for p, q in zip(before, loop.task.parameters(), strict=True))


def always_full(step: Step) -> dict[str, Tensor]:
    raise MemoryError


def test_what_says_that_memory_ran_out() -> None:
    assert out_of_memory(RuntimeError(CPU_WORDS)) and out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) and not out_of_memory(
        ValueError("out of memory")
    )


def small(family: Path, **values: Any) -> Any:
    """A lift whose prior has random weights."""
    base: dict[str, Any] = {
        "task": "lift", "name": "small", "prompt": "a red ball", "device": "cpu", "steps": 1, "preview_every": 0,
        "checkpoint_every": 0, "material": "plain", "background": "solid", "prompts": "same",
        "geometry": {"type": "hash-grid", "levels": 3, "log2_table": 9, "finest": 16, "hidden": 8},
        "renderer": {"type": "volume", "samples": 12, "grid": 8, "update_every": 2, "warmup": 3},
        "data": {"type": "random-cameras", "batch": 2, "size": 24},
        "guidance": [{"prior": {"type": "embedded", "family": str(family), "precision": "float32"}, "score": "sds"}],
    }  # fmt: skip
    return load_job(base | values, [], get_registry())


def test_a_lift_goes_on_with_fewer_views_then_fewer_rays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A geometry that cannot take more than 4000 points at once."""
    family = write_pipeline(tmp_path / "family", camera_dim=10)
    whole, most = HashGrid.field, []

    def narrow(self: HashGrid, points: Tensor) -> dict[str, Tensor]:
        if len(points) > 4000:
            raise RuntimeError(CPU_WORDS)
        most.append(len(points))
        return whole(self, points)

    monkeypatch.setattr(HashGrid, "field", narrow)
    run = run_job(small(family), get_registry(), folder=tmp_path / "run")
    said = "".join(capsys.readouterr())
    assert run.state == "finished" and run.step == 1 and max(most) <= 4000
    assert said.count("memory ran out at step 0: ") == 2 and "288 rays at once (renderer.training_rays)" in said
    assert "1 in 2 of the rows at once, in 2 times as many micro-batches; going on" in said

    def closed(self: HashGrid, points: Tensor) -> dict[str, Tensor]:
        raise RuntimeError(CPU_WORDS)

    monkeypatch.setattr(HashGrid, "field", closed)
    with pytest.raises(UserError, match=r"step 0: memory ran out .*alloc_cpu"):
        run_job(small(family), get_registry(), folder=tmp_path / "second", quiet=True)
    assert [p.name for p in list_checkpoints(tmp_path / "second" / "checkpoints")] == ["step-000000"]
