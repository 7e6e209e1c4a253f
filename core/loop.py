"""The one loop of the project: a task's losses, their gradients, one update; alike for lifting and for fitting.

:class:`Loop` does the arithmetic of a step on Lightning Fabric (device, precision, several processes). It writes no
file and prints nothing: :mod:`core.job` drives it, saves, and tells the listeners.

A step draws its randomness from streams that depend on the run's seed, the stage, the step and the micro-batch alone,
so a run that was stopped and resumed takes the same steps as one that was not. Process ``r`` of ``n`` with ``a``
accumulated micro-batches works on micro-batches ``r*a … r*a+a-1``: two devices do what one does with twice the
accumulation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.contracts import Step, Task
from core.errors import NonFiniteLoss, UserError
from core.optim import ScheduledOptimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from core.config.job import OptimizerConfig


@dataclass
class StepReport:
    """What a step came to.

    Attributes:
        losses: weighted losses by name and their ``total``, averaged over micro-batches and processes.
        metrics: what the task reported through ``Step.log``, averaged over micro-batches of the main process.
        rate: the learning rate.  grad_norm: 2-norm of the whole gradient before clipping.
    """

    losses: dict[str, float]
    metrics: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    grad_norm: float = 0.0


class Loop:
    """Steps of one stage.

    Args:
        fabric: launched; its device holds the task afterwards.
        task: what is optimised.
        optimizer: its configuration.
        total: steps of the stage (schedules refer to it).
        seed, stage: key the random streams.
        accumulate: micro-batches per update and process.
        gradient_clip: largest 2-norm of the gradient, or None.

    Attributes:
        updating: within the optimiser's update, which cannot be taken again.
    """

    def __init__(
        self,
        fabric: Fabric,
        task: Task,
        optimizer: OptimizerConfig,
        total: int,
        *,
        seed: int = 0,
        stage: int = 0,
        accumulate: int = 1,
        gradient_clip: float | None = None,
    ) -> None:
        self.fabric = fabric
        self.task = task.to(fabric.device)
        self.total = total
        self.seed, self.stage = seed, stage
        self.accumulate, self.gradient_clip = accumulate, gradient_clip
        self.scheduled = ScheduledOptimizer(self.task, optimizer)
        # The task itself is not wrapped: a wrapper would have to see every forward call, and would copy the Step.
        # What wrapping is for, autocast and the exchange of gradients, is done in `_micro` and `_share_gradients`.
        self._optimizer: Any = fabric.setup_optimizers(self.scheduled.raw)
        self._scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        self._prepared: int | None = None  # the step for which the task has been updated
        self.updating = False

    def step(self, index: int, micro: int = 0) -> Step:
        """The step ``index`` (0-based) as the task sees it."""
        return Step(index=index, total=self.total, seed=self.seed, stage=self.stage, micro=micro)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the task's own state: moments, counts, the loss scaler."""
        precision = self.fabric.strategy.precision.state_dict()
        return {"optimizer": self.scheduled.raw.state_dict(), "precision": precision}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            UserError: it belongs to other parameters or another rule.
        """
        if "optimizer" not in state:
            raise UserError("the checkpoint holds no optimiser state")
        self.scheduled.load(state["optimizer"])
        if self._scaled and state.get("precision"):  # empty where it was saved under another precision
            self.fabric.strategy.precision.load_state_dict(state["precision"])

    def take(self, index: int) -> StepReport:
        """Take step ``index``.

        Raises:
            NonFiniteLoss: a loss or the gradient is NaN or infinite; the parameters have not been changed.
            UserError: the task gave no loss, or none that depends on a parameter.
        """
        rate = self.scheduled.set_rate(index, self.total)
        first = self.fabric.global_rank * self.accumulate
        head = self.step(index)
        self._prepare(head)
        self.drop_gradients()
        losses: dict[str, Tensor] = {}
        metrics: dict[str, list[float]] = defaultdict(list)
        for micro in range(first, first + self.accumulate):
            step = head if micro == 0 else self.step(index, micro)
            for name, value in self._micro(step).items():
                losses[name] = losses[name] + value if name in losses else value
            for name, number in step.metrics.items():
                metrics[name].append(float(number))
        report = self._update(index, losses)
        seed_global(head.stream("torch.adapt"), self.fabric.device)
        self.task.adapt(head, self.scheduled)
        report.rate = rate
        report.metrics = {name: sum(values) / len(values) for name, values in metrics.items()}
        return report

    def _prepare(self, head: Step) -> None:
        """Update the task for a step, once: a step may be taken again after memory ran out."""
        if self._prepared != head.index:
            seed_global(head.stream("torch.update"), self.fabric.device)
            self.task.update(head)
            self._prepared = head.index

    def drop_gradients(self) -> None:
        """Forget the gradients of a step."""
        self._optimizer.zero_grad(set_to_none=True)

    def _micro(self, step: Step) -> dict[str, Tensor]:
        """Losses of one micro-batch (detached, divided by the number of micro-batches), gradients accumulated."""
        seed_global(step.stream("torch.step"), self.fabric.device)
        with self.fabric.autocast():
            losses = self.task.training_step(step)
        if not losses:
            raise UserError(f"{type(self.task).__name__} gave no loss at step {step.index}")
        parts = {name: _scalar(name, value) / self.accumulate for name, value in losses.items()}
        total = torch.stack(list(parts.values())).sum() if len(parts) > 1 else next(iter(parts.values()))
        if not total.requires_grad:
            raise UserError(
                f"at step {step.index} none of the losses ({', '.join(parts)}) depends on a trainable parameter"
            )
        self.fabric.backward(total)
        return {name: value.detach() for name, value in parts.items()}

    def _update(self, index: int, losses: dict[str, Tensor]) -> StepReport:
        wide = torch.float32 if self.fabric.device.type == "mps" else torch.float64
        stacked = torch.stack([value.to(wide) for value in losses.values()])
        if self.fabric.world_size > 1:
            stacked = self._mean(stacked)
            self._share_gradients()
        norm = self._gradient_norm().to(stacked)
        values = torch.cat([stacked, norm.reshape(1)]).tolist()  # the one place where the host waits for the device
        report = StepReport(dict(zip(losses, values[:-1], strict=True)), grad_norm=values[-1])
        self._guard(index, report)
        report.losses["total"] = sum(values[:-1])
        self.updating = True
        self._optimizer.step()
        self.updating = False
        return report

    def _gradient_norm(self) -> Tensor:
        """2-norm of the gradient; clips it where asked. With a loss scaler it is known only when clipping."""
        if self.gradient_clip is not None:
            norm = self.fabric.clip_gradients(
                self.task, self._optimizer, max_norm=self.gradient_clip, error_if_nonfinite=False
            )
            return torch.zeros(()) if norm is None else torch.as_tensor(norm)
        gradients = [p.grad for p in self.scheduled.parameters if p.grad is not None]
        if self._scaled:
            return torch.zeros((), device=gradients[0].device)
        norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
        return torch.as_tensor(torch.linalg.vector_norm(norms))

    def _guard(self, index: int, report: StepReport) -> None:
        bad = {name: value for name, value in report.losses.items() if not math.isfinite(value)}
        if bad:
            shown = ", ".join(f"'{name}' is {value}" for name, value in bad.items())
            raise NonFiniteLoss(f"step {index}: loss {shown}")
        # A scaler meets infinite gradients by design: it skips that update and lowers its scale.
        if not self._scaled and not math.isfinite(report.grad_norm):
            raise NonFiniteLoss(
                f"step {index}: the losses ({', '.join(report.losses)}) are finite, their gradient is not; "
                f"{self._culprits()}"
            )

    def _culprits(self) -> str:
        mine = {id(p) for p in self.scheduled.parameters}
        named = [(n, p.grad) for n, p in self.task.named_parameters() if id(p) in mine and p.grad is not None]
        bad = [name for name, grad in named if not bool(torch.isfinite(grad).all())]
        return f"first in {', '.join(bad[:4])}" if bad else "its norm overflows"

    def _mean(self, value: Tensor) -> Tensor:
        return torch.as_tensor(self.fabric.all_reduce(value, reduce_op="mean"))

    def _share_gradients(self) -> None:
        """Average gradients over processes; a parameter that no process used keeps none."""
        parameters = self.scheduled.parameters
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=self.fabric.device)
        used = self._mean(used)
        shared = [p for p, share in zip(parameters, used.tolist(), strict=True) if share > 0]
        by_dtype: dict[torch.dtype, list[torch.nn.Parameter]] = defaultdict(list)
        for p in shared:
            by_dtype[p.dtype].append(p)
        for group in by_dtype.values():
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group])
            pieces = torch.split(self._mean(flat), [p.numel() for p in group])
            for p, piece in zip(group, pieces, strict=True):
                p.grad = piece.view_as(p).clone()


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global streams of the CPU and of ``device``, for library code that draws from them (dropout).

    ``torch.manual_seed`` would do, but where CUDA is installed and unused it queues a call and a stack trace each time:
    half a millisecond a step, and memory that is never given back.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _scalar(name: str, value: Any) -> Tensor:
    """``value`` as a scalar of at least 32 bits."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise UserError(f"loss '{name}' must be a tensor with one number, not {_describe(value)}")
    return value.reshape(()).to(torch.promote_types(value.dtype, torch.float32))


def _describe(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
