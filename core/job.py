"""Runs a job: its stages in turn, checkpoints, previews, listeners, stopping and resuming."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core import checkpoint
from core.contracts import Task
from core.errors import NonFiniteLoss, UserError
from core.interrupt import StopRequests
from core.listeners import Events, own_listeners, truncate_metrics
from core.loop import Loop, StepReport
from core.precision import fast_bfloat16
from core.recovery import take_lighter
from core.resume import check_resume, find_checkpoint
from core.run import Run, new_folder, read_status, write_description
from core.stages import build_chain, build_task, component_builder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from core.checkpoint import Position
    from core.config.job import Job, JobConfig, StageConfig
    from core.registry import Registry


def run_job(
    job: Job,
    registry: Registry,
    folder: Path | None = None,
    resume: Path | None = None,
    quiet: bool = False,
    max_steps: int | None = None,
) -> Run:
    """Run a job to its end, or until it is stopped.

    Args:
        job: checked (``load_job``).  registry: where its components are found.
        folder: the run's folder, new or empty; by default ``OUTPUT/NAME-DATE-TIME``.
        resume: a run's folder, or one of its checkpoints, to go on from.
        quiet: say nothing but warnings.
        max_steps: stop, saved, after so many steps of this call.

    Returns:
        The run; its ``state`` is ``finished`` or ``stopped``.

    Raises:
        UserError: nothing to resume, the job does not fit what is resumed, or the device is not there.
        NonFiniteLoss: a loss or gradient is not a number; the state before that update has been saved.
    """
    fabric = make_fabric(job.config)
    fabric.launch()
    start, given = find_checkpoint(resume) if resume is not None else None, folder is not None
    folder = start.parent.parent if start is not None else _folder(job, folder, fabric)
    run = Run(folder, job, registry, main=fabric.is_global_zero, quiet=quiet)
    driver = _Driver(run, fabric, max_steps)
    try:
        with StopRequests(run.stop):
            driver.prepare(start)
            driver.drive()
    except KeyboardInterrupt:
        if not driver.begun:
            raise
        driver.interrupted()
    except BaseException as error:
        if driver.begun:
            run.set_status("failed", f"{type(error).__name__}: {error}".splitlines()[0])
        if start is None and not given and isinstance(error, UserError):
            run.events.close()
            _discard(run)
        raise
    finally:
        run.events.close()
    return run


def make_fabric(config: JobConfig) -> Fabric:
    """Lightning Fabric on the job's device and precision.

    Raises:
        UserError: the device is not there, or does not know the precision.
    """
    from lightning_fabric import Fabric

    _check_device(config)
    precision: Any = settled_precision(config)
    try:
        return Fabric(accelerator=config.device, devices=config.devices, precision=precision)
    except (RuntimeError, ValueError) as error:
        asked = f"device: {config.device}, devices: {config.devices}, precision: {config.precision}"
        raise UserError(f"{asked} is not possible here: {str(error).splitlines()[0]}") from None
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise UserError(f"device: {config.device} is not available here: {error}") from None


def settled_precision(config: JobConfig) -> str:
    """The precision that a job runs in on this machine: what ``auto`` means here."""
    if config.precision != "auto":
        return config.precision
    return "bf16-mixed" if fast_bfloat16(_device_type(config)) else "32-true"


def _device_type(config: JobConfig) -> str:
    """The torch device type that Fabric will take."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _check_device(config: JobConfig) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(config.device, True):
        raise UserError(
            f"device: {config.device} is not available here, PyTorch {torch.__version__} finds none. "
            f"Write device=auto for the best there is, or device=cpu; `doctor` shows the devices"
        )
    most = 2 * (os.cpu_count() or 1)
    if config.devices > most and (config.device == "cpu" or not any(there.values())):
        raise UserError(f"devices: {config.devices} on the CPU means as many processes; at most {most} make sense here")


def _discard(run: Run) -> None:
    """Remove the folder of a run that was refused before its first step: it tells nothing that the error does not."""
    if run.main and {p.name for p in run.folder.iterdir()} <= {"config.yaml", "plugins.json", "status.json", "code"}:
        shutil.rmtree(run.folder, ignore_errors=True)


def _folder(job: Job, folder: Path | None, fabric: Fabric) -> Path:
    """The new run's folder, the same in every process."""
    made = ""
    if fabric.is_global_zero:
        if folder is None:
            folder = new_folder(job.config.output, job.config.name)
        elif folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: choose another folder, or resume the run in it")
        folder.mkdir(parents=True, exist_ok=True)
        made = str(folder)
    return Path(fabric.broadcast(made))


class _Driver:
    """One call of :func:`run_job`."""

    def __init__(self, run: Run, fabric: Fabric, max_steps: int | None) -> None:
        self.run, self.fabric, self.job = run, fabric, run.job
        self.left = max_steps
        self.stage, self.index = 0, 0
        self.loop: Loop | None = None
        self.begun = False
        steps = [s.config.steps for s in self.job.stages]
        self.offsets = [sum(steps[:k]) for k in range(len(steps) + 1)]
        now = run.progress
        now.total, now.device = self.offsets[-1], fabric.device
        self.versions = {p.name: p.version for p in run.registry.plugins if p.status == "loaded"}

    def prepare(self, start: Path | None) -> None:
        """Folder, task and listeners, so that the next thing to do is a step."""
        if start is None:
            self.begun = True
            if self.run.main:
                write_description(self.run)
            self._begin(0)
        else:
            self._resume(start)
        self._listen()
        self.run.set_status("running")

    def _resume(self, start: Path) -> None:
        position = checkpoint.read_position(start)
        for warning in check_resume(self.run, position, self.offsets):
            self.run.warn(warning)
        if position.step >= self.offsets[-1] and read_status(self.run.folder).get("state") == "finished":
            raise UserError(
                f"{self.run.folder} is finished, all {position.step} steps of it; nothing is left to resume"
            )
        run = self.run
        task = build_chain(self.job, run.registry, run.checkpoints, position.stage, self.fabric.device)
        _, state = checkpoint.load(start, task)
        self._enter(task, position.stage, position.index)
        assert self.loop is not None
        self.loop.load_state(state)
        self.begun = True  # nothing in the folder has been changed so far, so that a refusal leaves it as it was
        if run.main:
            checkpoint.sweep(run.checkpoints)
            truncate_metrics(run.folder / "metrics.jsonl", position.step)
            checkpoint.set_aside(run.checkpoints, position.step)
            write_description(run)

    def _begin(self, stage: int) -> None:
        """Start ``stage`` with a new task, which sees the one before it while it is built."""
        previous, self.loop = self.run.current, None
        self._enter(build_task(self.job, self.run.registry, stage, self.fabric.device, previous), stage, 0)

    def _enter(self, task: Task, stage: int, index: int) -> None:
        """Make ``stage`` the current one, about to take its step ``index``."""
        self.stage, self.index, self.run.current = stage, index, task
        config = self.job.stages[stage].config
        now = self.run.progress
        now.stage, now.stage_name, now.log_every = stage, config.name, config.log_every
        now.step, now.stage_end = self.offsets[stage] + index, self.offsets[stage + 1]
        self.loop = Loop(
            self.fabric, task, config.optimizer, config.steps, seed=self.job.config.seed, stage=stage,
            accumulate=config.accumulate, gradient_clip=config.gradient_clip,
        )  # fmt: skip

    def _listen(self) -> None:
        """Build the job's listeners and connect everyone who follows."""
        run = self.run
        listeners = own_listeners(run.console.is_terminal, run.quiet) if run.main else []
        if run.main:
            from core.contracts import Context

            build = component_builder(run.registry, Context(seed=self.job.config.seed))
            listeners += [(f"listener {spec.name}", build(spec)) for spec in self.job.config.listeners]
        run.events = Events(run.registry.hooks if run.main else None, listeners, report=run.warn)

    def drive(self) -> None:
        """Steps to the end or until asked to stop."""
        run = self.run
        run.emit("on_start")
        while not self._must_stop():
            if self.index < self._config.steps:
                self._step()
            elif self.stage + 1 < len(self.job.stages):
                if run.main and run.current is not None:
                    run.assets.mkdir(exist_ok=True)
                    run.current.leave(run)
                self._begin(self.stage + 1)
            else:
                self._finish()
                return
        self._stop()

    @property
    def _config(self) -> StageConfig:
        return self.job.stages[self.stage].config

    def _must_stop(self) -> bool:
        if self.left is not None and self.left <= 0 and self.run.step < self.offsets[-1]:
            self.run.stop(f"{self.run.step} steps taken, as asked")
        asked = bool(self.run.stop_reason)
        if self.fabric.world_size > 1:  # all or none: a process that stopped alone would leave the others waiting
            flag: Any = self.fabric.all_reduce(torch.tensor(float(asked), device=self.fabric.device), reduce_op="sum")
            asked = bool(flag > 0)
        return asked

    def _step(self) -> None:
        assert self.loop is not None
        try:
            report = take_lighter(self.loop, self.index, self.run.warn, self._save)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(self._keep_evidence(error)) from None
        self.index += 1
        if self.left is not None:
            self.left -= 1
        self._tell(report)
        config, last = self._config, self.index == self._config.steps
        if config.preview_every and (last or self.index % config.preview_every == 0):
            self._preview()
        if last or (config.checkpoint_every and self.index % config.checkpoint_every == 0):
            self._save()

    def _tell(self, report: StepReport) -> None:
        now = self.run.progress
        now.step = self.offsets[self.stage] + self.index
        now.losses, now.metrics = report.losses, report.metrics
        now.rate, now.grad_norm = report.rate, report.grad_norm
        now.tick()
        self.run.emit("on_step", step=now.step, losses=now.losses)

    def _preview(self) -> None:
        if self.run.main and self.loop is not None:
            step = self.loop.step(self.index - 1)
            self.run.events.guard("preview", self._write_previews, step=step)

    @torch.no_grad()
    def _write_previews(self, step: Any) -> None:
        assert self.loop is not None
        with self.fabric.autocast():
            pictures = self.loop.task.preview(step)
        for name, picture in pictures.items():
            self.run.write_preview(name, picture)

    def _save(self, name: str = "", note: str = "") -> Path:
        """Write a checkpoint of what has been done so far; prune the old ones."""
        run, loop = self.run, self.loop
        path = run.checkpoints / (name or checkpoint.name_of(run.step))
        if not run.main or loop is None:
            return path
        checkpoint.save(path, loop.task, self._position(note), loop.state())
        # A later stage may take its shape from how an earlier one ended, also after a resume: those ends stay.
        ends = {checkpoint.name_of(offset) for offset in self.offsets[1:-1]}
        checkpoint.prune(run.checkpoints, self.job.config.keep, ends)
        return path

    def _position(self, note: str) -> Position:
        return checkpoint.Position(
            step=self.run.step, stage=self.stage, index=self.index, total=self.offsets[-1],
            seed=self.job.config.seed, plugins=self.versions, note=note,
        )  # fmt: skip

    def _keep_evidence(self, error: NonFiniteLoss) -> str:
        path = self._save(f"nonfinite-{self.run.step:06d}", note=str(error))
        folder = shown(self.run.folder)
        return (
            f"stage '{self._config.name}', {error}. What the task held before that update is in {path}. "
            f"To go on from the last checkpoint with a smaller step: python launch.py run {folder}/config.yaml "
            f"--resume {folder} optimizer.lr={self._config.optimizer.lr / 2:g} gradient_clip=1"
        )

    def _finish(self) -> None:
        run = self.run
        assert run.current is not None
        self.fabric.barrier()
        if run.main:
            run.assets.mkdir(exist_ok=True)
            run.current.finish(run)
        run.emit("on_finish")
        run.set_status("finished")
        self.fabric.barrier()

    def _stop(self) -> None:
        run = self.run
        if not (run.checkpoints / checkpoint.name_of(run.step)).is_dir():
            self._save()
        run.set_status("stopped", run.stop_reason)
        run.events.close()
        run.say(f"stopped at step {run.step} of {run.progress.total} ({run.stop_reason}); saved")
        run.say(f"resume with: {resume_command(run.folder)}")

    def interrupted(self) -> None:
        """A second Ctrl-C, within a step: nothing is saved, for the task may be half way through an update."""
        run = self.run
        run.set_status("stopped", "interrupted within a step")
        run.events.close()
        run.say(
            f"interrupted within step {run.step + 1}; resume from the last checkpoint with: "
            f"{resume_command(run.folder)}"
        )


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    return f"python launch.py resume {shown(folder)}"


def shown(folder: Path) -> str:
    """A folder as one would type it."""
    return os.path.relpath(folder) if folder.is_absolute() and folder.is_relative_to(Path.cwd()) else str(folder)
