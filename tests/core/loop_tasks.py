"""Small tasks and jobs for the tests of the loop; run as a script, it takes or resumes a job in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.config.job import Job
from core.config.loading import load_job
from core.contracts import Component, Context, Step, Task
from core.job import run_job
from core.registry import Entry, PluginInfo, Registry
from core.run import Run

# An environment variable, not an option: a run that is to be compared must have the same configuration.
KILL_AT = tuple(int(n) for n in os.environ.get("TINY_KILL_AT", "").split())


class Wave(Task):
    """Fits an MLP with dropout to a sine; draws from a stream of its own and from torch's global stream."""

    class Config(BaseConfig):
        width: int = 16
        nan_at: int = -1

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        previous = context.parts.get("previous")
        width = options.width if previous is None else previous.options.width
        self.net = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 1))
        generator = context.generator("net")
        with torch.no_grad():
            for p in self.net.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
        if previous is not None:
            self.net.load_state_dict(previous.net.state_dict())
        self.register_buffer("average", torch.zeros(()))
        self.finished = 0

    def update(self, step: Step) -> None:
        self.average.mul_(0.9).add_(torch.rand((), generator=step.generator("average")))

    def training_step(self, step: Step) -> dict[str, Tensor]:
        x = torch.rand(32, 1, generator=step.generator("x")) * 6 - 3
        error = (self.net(x) - torch.sin(x)).square().mean()
        if step.index == self.options.nan_at:
            error = error * float("nan")
        if (step.stage, step.index) == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        step.log(noise=float(self.average))
        return {"error": error, "weight": 1e-4 * self.net[0].weight.square().sum()}

    def preview(self, step: Step) -> dict[str, Any]:
        torch.rand(7)  # a preview that draws must not change the steps after it
        return {"fit": torch.full((4, 5, 3), step.index % 256, dtype=torch.uint8)}

    def finish(self, run: Run) -> None:
        self.finished += 1
        path = run.assets / "net.txt"
        path.write_text(str(sum(p.numel() for p in self.parameters())))
        run.emit("on_export", path=path, kind="text")


class Recorder(Component):
    """A listener that notes what it is told."""

    heard: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, options: Any, context: Context) -> None:
        self.heard.clear()

    def on_start(self) -> None:
        self.heard.append(("start",))

    def on_step(self, run: Run, step: int, losses: dict[str, float]) -> None:
        self.heard.append(("step", step, sorted(losses)))

    def on_preview(self, path: Path, step: int) -> None:
        self.heard.append(("preview", step, path.name, path.exists()))

    def on_export(self, path: Path, kind: str) -> None:
        self.heard.append(("export", path.name, kind))

    def on_finish(self, run: Run) -> None:
        self.heard.append(("finish", run.step))


class Clumsy(Component):
    """A listener that always fails."""

    def __init__(self, options: Any, context: Context) -> None:
        pass

    def on_step(self, step: int) -> None:
        raise KeyError("spanner")


class Once(Component):
    """A listener that does something at one step: sends this process a signal, or asks the run to stop."""

    class Config(BaseConfig):
        step: int
        action: str

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options

    def on_step(self, run: Run, step: int) -> None:
        if step == self.options.step:
            if self.options.action == "stop":
                run.stop("seen enough")
            else:
                for name in self.options.action.split():
                    signal.raise_signal(getattr(signal, name))


def registry(version: str = "1") -> Registry:
    """The components above, as a plugin named ``tiny``."""
    home = Wave.__module__
    found = Registry()
    declared = [("task", "wave", "Wave"), ("listener", "recorder", "Recorder"), ("listener", "clumsy", "Clumsy"),
                ("listener", "once", "Once")]  # fmt: skip
    entries = [Entry(kind, name, f"{home}:{cls}", "a thing", "tiny") for kind, name, cls in declared]
    found.adopt(PluginInfo("tiny", "folder", version), entries)
    return found


def make_job(*overrides: str, found: Registry | None = None, **values: Any) -> Job:
    """A job of the task ``wave``, 12 steps on the CPU, changed by ``values`` and ``overrides``."""
    base = {"task": "wave", "name": "tiny", "device": "cpu", "steps": 12, "preview_every": 0}
    return load_job(base | values, overrides, found or registry())


def main(folder: str, resume: str, *overrides: str) -> None:
    """Run the job in ``folder``, or resume the run in it."""
    path = Path(folder)
    run_job(make_job(*overrides), registry(), folder=path, resume=path if resume == "resume" else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
