"""The schema of a job file: what every job has, whatever its task.

The keys of three schemas stand side by side at the top level of a file: :class:`JobConfig` (once per job),
:class:`StageConfig` (may differ per stage) and the ``Config`` of the task named by ``task:``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from core.config.base import ComponentSpec, Config, Slot
from core.config.schedule import Schedule

Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """How parameters follow their gradients."""

    type: Literal["adam", "adamw", "sgd"] = "adam"
    """The rule; adamw decouples the weight decay from the gradient, sgd takes the first beta as its momentum."""
    lr: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    """Learning rate; a component may scale its own part of it."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Decay of the running mean and of the running square of the gradient."""
    eps: float = Field(default=1e-15, gt=0, allow_inf_nan=False)
    """Added to the root of the running square; small because grid gradients are."""
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Pull towards zero."""
    schedule: Schedule = Schedule([(0, 1.0)])
    """Multiplies the learning rate over the stage."""


class PluginsConfig(Config):
    """Which plugins a job insists on or refuses."""

    require: list[str] = []
    """Plugins that must be loaded."""
    disable: list[str] = []
    """Plugins whose components and hooks this job must not use."""


class StageConfig(Config):
    """How long and how a stage is optimised; at the top level these are every stage's defaults."""

    name: str = "main"
    """The stage's name in logs and checkpoints; ``stage-1``, ``stage-2`` … where ``stages`` gives none."""
    steps: int = Field(default=400, ge=1)
    """Optimiser steps of the stage."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches whose gradients are added before each optimiser step."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; null leaves it alone."""
    checkpoint_every: int = Field(default=100, ge=0)
    """Steps between checkpoints; 0 saves at the end only."""
    preview_every: int = Field(default=50, ge=0)
    """Steps between preview pictures; 0 makes none."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of ``metrics.jsonl``."""


class JobConfig(Config):
    """What holds for a whole job."""

    name: str = "job"
    """Title of the job, used for its folder; the file's name where not given."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Everything random follows from it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes the fastest there is."""
    devices: int = Field(default=1, ge=1)
    """How many of them."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = "32-true"
    """Arithmetic of the optimisation; auto is bf16-mixed where the machine multiplies bfloat16 in hardware."""
    output: Path = Path("runs")
    """Folder that receives one folder per run."""
    keep: int = Field(default=2, ge=1)
    """How many of the last checkpoints stay on disk."""
    listeners: list[Annotated[ComponentSpec, Slot("listener")]] = []
    """Components told about steps, previews and exports."""
    plugins: PluginsConfig = PluginsConfig()
    """Which plugins the job insists on or refuses."""


@dataclass(frozen=True)
class Stage:
    """One stage of a job, checked.

    Attributes:
        index: 0-based place in the job.
        config: its loop settings (``config.steps``, ``config.optimizer`` …).
        task: the task and its validated options.
    """

    index: int
    config: StageConfig
    task: ComponentSpec


@dataclass
class Job:
    """A checked job: every name is known, every option valid, every signal supplied. Nothing is built yet.

    Attributes:
        config: what holds for all stages.
        stages: at least one.
        resolved: the whole job, defaults included, as plain values (numbers, strings, lists, dicts) that load back to
            an equal job.
        source: the file it came from, as shown to the user.
        registry: the registry that its names were found in.
    """

    config: JobConfig
    stages: list[Stage]
    resolved: dict[str, Any]
    source: str = field(compare=False)
    registry: Any = field(default=None, repr=False, compare=False)
