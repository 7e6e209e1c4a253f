"""What a job does when memory runs out in a step: it lowers the load, says so, and takes the same step again.

A step that was given up has changed nothing: the parameters are those before it, its gradients are dropped, and what
the task prepares for a step (``update``) is not prepared twice. Fewer rows at once mean more micro-batches, so that an
update sees as many; they draw from the streams of a run that was started with that batch and that ``accumulate``.
A run that is resumed begins with the job's own load again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from core.errors import UserError

if TYPE_CHECKING:
    from core.loop import Loop, StepReport

_SAID = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of a GPU (CUDA, MPS) or of the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def take_lighter(loop: Loop, index: int, warn: Callable[[str], None], save: Callable[[], object]) -> StepReport:
    """Take step ``index``, with as little load as it needs.

    Args:
        warn: told in one line what was lowered.  save: called before giving up.

    Raises:
        UserError: memory runs out at the smallest load, or where it cannot be lowered (within an update, or among
            several processes, which would have to agree).
    """
    while True:
        try:
            return loop.take(index)
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        # Outside of ``except``: the traceback there holds the step's tensors.
        loop.drop_gradients()
        gc.collect()
        if loop.fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        lighter = None if loop.updating or loop.fabric.world_size > 1 else loop.task.lighten()
        if lighter is None:
            if not loop.updating:
                save()
            raise UserError(
                f"step {index}: memory ran out and the load cannot be lowered further ({reason}); "
                "try vram=8gb, or a smaller data.size"
            )
        loop.accumulate *= lighter.micro_batches
        warn(f"memory ran out at step {index}: {lighter.what}; going on from that step")
