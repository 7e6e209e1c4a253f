"""From a job's stages to tasks: building, handing over, and which plugins are behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core import checkpoint
from core.config.base import ComponentSpec, Config
from core.config.build import build
from core.contracts import Context, Task

if TYPE_CHECKING:
    from core.config.job import Job
    from core.registry import Registry


def build_task(
    job: Job,
    registry: Registry,
    stage: int,
    device: torch.device,
    previous: Task | None = None,
    restored: bool = False,
) -> Task:
    """The task of a stage, on ``device``.

    ``context.parts`` holds the registry as ``"registry"`` and, while the task is built, the task of the stage before it
    as ``"previous"`` and, where a checkpoint will fill what is built, ``"restored"``: costly first values may be left
    out.
    """
    context = Context(device=device, seed=job.config.seed, parts={"registry": registry})
    if restored:
        context.parts["restored"] = True
    if previous is not None:
        context.parts["previous"] = previous
        # Words that an earlier stage learned: priors are loaded at the first step, when that stage is gone.
        known = getattr(previous, "context", context).parts.get("learned_tokens", {})
        context.parts["learned_tokens"] = known | getattr(previous, "learned_tokens", {})
    task: Task = build(job.stages[stage].task, context, registry)
    context.parts.pop("restored", None)
    context.parts.pop("previous", None)  # else every stage would stay in memory until the last
    return task.to(device)


def build_chain(job: Job, registry: Registry, checkpoints: Path, stage: int, device: torch.device) -> Task:
    """The task of ``stage``, for a checkpoint to fill, with the stages before it as they ended, which it may take its
    shape from."""
    previous: Task | None = None
    steps = 0
    for index in range(stage):
        previous = build_task(job, registry, index, device, previous, restored=True)
        steps += job.stages[index].config.steps
        checkpoint.load(checkpoints / checkpoint.name_of(steps), previous)
    return build_task(job, registry, stage, device, previous, restored=True)


def component_builder(registry: Registry, context: Context) -> Callable[[ComponentSpec], Any]:
    """What ``context.build`` is: builds a spec in this same context."""
    return partial(build, context=context, registry=registry)


def used_plugins(job: Job, registry: Registry) -> set[str]:
    """Names of the plugins whose components the job names, however deep."""
    specs = [s for stage in job.stages for s in find_specs(stage.task)]
    specs += list(find_specs(job.config.listeners))
    return {registry.find(s.kind, s.name).plugin for s in specs}


def find_specs(value: Any) -> Iterator[ComponentSpec]:
    """Every component spec within options, lists and dictionaries."""
    if isinstance(value, ComponentSpec):
        yield value
        yield from find_specs(value.options)
    elif isinstance(value, Config):
        for name in type(value).model_fields:
            yield from find_specs(getattr(value, name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from find_specs(item)
    elif isinstance(value, dict):
        yield from find_specs(list(value.values()))
