"""A run: its folder, what it says and writes, and the way back to its task once it is finished.

::

    runs/NAME-20250131-142501/
        config.yaml    the job, resolved      plugins.json   name, version, source, whether the job uses it
        metrics.jsonl  one line per log       status.json    state, step, total, message
        checkpoints/   previews/   assets/        code/          what made it
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from core import checkpoint
from core.config.dump import dump_yaml
from core.errors import UserError
from core.listeners import Events
from core.snapshot import keep_code
from core.stages import build_chain, used_plugins

if TYPE_CHECKING:
    from core.config.job import Job
    from core.contracts import Task
    from core.registry import Registry

STATES = ("running", "finished", "stopped", "failed")


@dataclass
class RunProgress:
    """Where a run stands; counts are over all stages.

    Attributes:
        step: updates done.  total: updates of the whole run.  stage_end: updates done when this stage ends.
        losses, metrics: of the last step.  rate: learning rate.  memory: peak, in MiB, or None where unknown.
    """

    step: int = 0
    total: int = 0
    stage: int = 0
    stage_name: str = ""
    stage_end: int = 0
    log_every: int = 10
    losses: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    grad_norm: float = 0.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    def tick(self) -> None:
        """Note that a step has just been taken."""
        self._times.append(time.perf_counter())

    @property
    def pace(self) -> float:
        """Steps per second over the last 50 steps; 0 before the second."""
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)

    @property
    def memory(self) -> float | None:
        """Peak memory in MiB: of the device where it keeps count, else of the process; None where unknown."""
        return peak_memory(self.device)

    def record(self) -> dict[str, Any]:
        """The line of ``metrics.jsonl``."""
        return {
            "step": self.step, "stage": self.stage, "losses": self.losses, "metrics": self.metrics, "lr": self.rate,
            "grad_norm": self.grad_norm, "steps_per_second": round(self.pace, 3), "memory_mib": self.memory,
        }  # fmt: skip

    def describe(self) -> str:
        """Losses, pace, time left and memory on one line."""
        total = self.losses.get("total")
        parts = [] if total is None else [f"loss {total:.4g}"]
        named = {k: v for k, v in self.losses.items() if k != "total"}
        shown = named if len(named) > 1 else {}
        parts += [f"{k} {v:.3g}" for k, v in list((shown | self.metrics).items())[:5]]
        pace = self.pace
        if pace > 0:
            left = int((self.total - self.step) / pace)
            parts += [f"{pace:.3g} it/s" if pace >= 1 else f"{1 / pace:.3g} s/it", f"{_clock(left)} left"]
        if (memory := self.memory) is not None:
            parts.append(f"{memory:.0f} MiB")
        return "  ".join(parts)


class Run:
    """A run's folder and what is known of it. Made by :func:`core.job.run_job` and :func:`open_run`.

    Attributes:
        folder: of the run.  job, registry: what it was started with.  progress: where it stands.
        state: running, finished, stopped or failed.  message: one sentence on it.
        events: who follows it.  console: where it speaks.  main: False in the further processes of several devices,
            which write and say nothing.
    """

    def __init__(self, folder: Path, job: Job, registry: Registry, *, main: bool = True, quiet: bool = False) -> None:
        self.folder = Path(folder)
        self.job, self.registry = job, registry
        self.main, self.quiet = main, quiet
        self.progress = RunProgress()
        self.state, self.message = "running", ""
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self.events = Events(report=self.warn)
        self.stop_reason = ""
        self.current: Task | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def previews(self) -> Path:
        return self.folder / "previews"

    @property
    def assets(self) -> Path:
        return self.folder / "assets"

    @property
    def step(self) -> int:
        """Updates done, over all stages."""
        return self.progress.step

    def say(self, message: str) -> None:
        """A line for the user, above the status line; nothing when quiet."""
        if self.main and not self.quiet:
            self.console.print(message)

    def warn(self, message: str) -> None:
        """A line on standard error, quiet or not."""
        if self.main:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    def emit(self, event: str, **values: Any) -> None:
        """Tell plugins and listeners: ``run.emit("on_export", path=path, kind="glb")``."""
        if self.main:
            self.events.emit(event, run=self, **values)

    def stop(self, reason: str = "asked to stop") -> None:
        """End the run after the current step, as Ctrl-C does: saved, and ready to be resumed."""
        self.stop_reason = self.stop_reason or reason

    def log(self, **values: Any) -> None:
        """Append a line to ``metrics.jsonl``; ``step`` is added where it is missing."""
        if not self.main:
            return
        line = json.dumps({"step": self.step} | values, default=float)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def set_status(self, state: str, message: str = "") -> None:
        """Replace ``status.json``; ``state`` is one of ``STATES``."""
        self.state, self.message = state, message
        if self.main:
            now = self.progress
            status = {
                "state": state, "step": now.step, "total": now.total, "stage": now.stage_name, "message": message,
                "losses": now.losses, "updated": datetime.now().isoformat(timespec="seconds"),
            }  # fmt: skip
            checkpoint.write_atomic(self.folder / "status.json", json.dumps(status, indent=1))

    def write_preview(self, name: str, picture: Any) -> Path:
        """Write ``previews/step-000123-NAME.png`` from a [H, W, 3] uint8 array and tell the listeners."""
        pixels = np.asarray(picture)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UserError(f"preview '{name}' is {pixels.dtype} {list(pixels.shape)}, not uint8 [H, W, 3]")
        self.previews.mkdir(exist_ok=True)
        path = self.previews / f"{checkpoint.name_of(self.step)}-{slug(name)}.png"
        temporary = path.with_name(f".{path.name}")
        Image.fromarray(pixels).save(temporary, format="PNG")
        temporary.replace(path)
        self.emit("on_preview", step=self.step, path=path)
        return path

    def newest(self) -> Path:
        """The newest checkpoint.

        Raises:
            UserError: there is none.
        """
        found = checkpoint.list_checkpoints(self.checkpoints)
        if not found:
            raise UserError(f"{self.folder} has no checkpoint yet")
        return found[-1]

    def task(self, path: Path | None = None, device: torch.device | None = None) -> Task:
        """The task: the live one during a run, else rebuilt with a checkpoint's weights (the newest by default)."""
        if path is None and self.current is not None:
            return self.current
        where = path or self.newest()
        stage = checkpoint.read_position(where).stage
        device = device or pick_device(self.job.config.device)
        task = build_chain(self.job, self.registry, self.checkpoints, stage, device)
        checkpoint.load(where, task)
        if path is None:
            self.current = task
        return task


def new_folder(root: Path, name: str) -> Path:
    """Create ``root/NAME-YYYYmmdd-HHMMSS``, with ``-2`` … where two runs start within a second.

    Raises:
        UserError: ``root`` cannot be written to, or is a file.
    """
    stem = f"{slug(name)}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for k in range(1, 1000):
            folder = root / (stem if k == 1 else f"{stem}-{k}")
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        what = "it is a file" if root.is_file() else error.strerror
        raise UserError(f"no run can be written into the output folder {root}: {what}") from None
    raise UserError(f"{root} holds a thousand runs named {stem}")


def write_description(run: Run) -> None:
    """``config.yaml`` and ``plugins.json`` of a run that starts or goes on, and the code that makes it."""
    checkpoint.write_atomic(run.folder / "config.yaml", dump_yaml(run.job.resolved))
    used = used_plugins(run.job, run.registry)
    plugins = [
        {"name": p.name, "version": p.version, "source": p.source, "used": p.name in used}
        for p in run.registry.plugins
        if p.status == "loaded"
    ]
    checkpoint.write_atomic(run.folder / "plugins.json", json.dumps(plugins, indent=1))
    try:
        keep_code(run.folder, [p for p in run.registry.plugins if p.status == "loaded"], run.step)
    except (OSError, ValueError) as error:
        run.warn(f"the code that makes this run could not be kept: {error}")


def open_run(folder: Path | str, registry: Registry | None = None) -> Run:
    """A run that was made before; ``.task()`` rebuilds its last task with the newest weights.

    Raises:
        UserError: no run there, or its configuration no longer loads.
    """
    from core.config.loading import load_job
    from core.discovery import get_registry

    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not a run: it has no config.yaml")
    registry = registry or get_registry()
    run = Run(folder, load_job(folder / "config.yaml", registry=registry), registry)
    run.events = Events(registry.hooks, report=run.warn)
    status = read_status(folder)
    run.state, run.message = str(status.get("state", "stopped")), str(status.get("message", ""))
    run.progress.step, run.progress.total = int(status.get("step", 0)), int(status.get("total", 0))
    return run


def read_status(folder: Path) -> dict[str, Any]:
    """``status.json`` of a run; empty where there is none, or none that makes sense."""
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        return {**status, "step": int(status["step"]), "total": int(status["total"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def slug(name: str) -> str:
    """``name`` as a file name: letters, digits, dots, dashes."""
    return re.sub(r"[^\w.-]+", "-", name.strip()).strip("-.") or "run"


def pick_device(name: str) -> torch.device:
    """The device ``name`` if this machine has it, else the fastest it has: a run may be exported elsewhere."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return torch.device(name if there.get(name) else next(n for n, found in there.items() if found))


def peak_memory(device: torch.device) -> float | None:
    """Peak memory in MiB: of the CUDA device, else of the process; None where the system does not tell."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _clock(seconds: int) -> str:
    hours, rest = divmod(max(seconds, 0), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
