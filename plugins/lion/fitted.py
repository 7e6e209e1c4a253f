"""A fitted lion from its run, for what stands on one."""

from __future__ import annotations

from pathlib import Path

from core.contracts import Context
from core.errors import UserError
from core.generative.drawing import open_generator
from plugins.lion.lion import Lion


def fitted(folder: Path, context: Context, key: str) -> Lion:
    """The averaged networks of a run, for the option ``key``.

    Raises:
        UserError: no run, one without a checkpoint, or one of another generator.
    """
    try:
        run, generator = open_generator(folder, registry=context.parts.get("registry"), device=context.device)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    if not isinstance(generator, Lion):
        name = run.job.stages[-1].task.name
        raise UserError(f"{key}: {folder} fitted '{name}'; a lion is needed")
    return generator.requires_grad_(False)
