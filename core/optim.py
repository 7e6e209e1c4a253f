"""The optimiser of a stage: Adam, AdamW or SGD over the task's parameter groups, with a scheduled learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from core.config.job import OptimizerConfig
    from core.contracts import Task

OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class ScheduledOptimizer:
    """An optimiser whose groups run at ``lr * lr_scale * schedule(step)``.

    Args:
        task: gives the groups (``param_groups``); ``lr_scale`` in a group defaults to 1, other keys (``weight_decay``,
            ``betas`` …) override the configuration's for that group.
        config: type, lr, betas, eps, weight_decay and the schedule that multiplies lr.

    Raises:
        UserError: unknown type, or no trainable parameter.
    """

    def __init__(self, task: Task, config: OptimizerConfig) -> None:
        if config.type not in OPTIMIZERS:
            raise UserError(f"optimizer.type: no optimiser '{config.type}'.{did_you_mean(config.type, OPTIMIZERS)}")
        groups = [g | {"params": list(g["params"])} for g in task.param_groups()]
        groups = [g for g in groups if g["params"]]
        if not groups:
            raise UserError(f"the task {type(task).__name__} has no trainable parameter, so nothing can be optimised")
        self._scales = [float(g.pop("lr_scale", 1.0)) for g in groups]
        self._config = config
        rule = {"momentum": config.betas[0]} if config.type == "sgd" else {"betas": config.betas, "eps": config.eps}
        self.raw: Optimizer = OPTIMIZERS[config.type](groups, lr=config.lr, weight_decay=config.weight_decay, **rule)  # type: ignore[call-arg]

    def load(self, state: dict[str, Any]) -> None:
        """Take over moments and counts; rates, betas and decay stay those of the configuration.

        Raises:
            UserError: the state belongs to other groups or another rule.
        """
        options = [{k: v for k, v in group.items() if k != "params"} for group in self.raw.param_groups]
        try:
            self.raw.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise UserError(f"the saved optimiser does not fit this configuration: {error}") from None
        for group, own in zip(self.raw.param_groups, options, strict=True):
            group.update(own)

    def resize(self, old: torch.nn.Parameter, value: torch.Tensor, rows: torch.Tensor) -> torch.nn.Parameter:
        """Put a parameter with other rows in the place of ``old``; the caller assigns it to its module.

        Args:
            value: [M, ...] what the new parameter holds.
            rows: [M] int64, the row of ``old`` whose moments each new row keeps; -1 starts from none.

        Raises:
            KeyError: ``old`` is not optimised here.
        """
        new = torch.nn.Parameter(value.detach().clone(), requires_grad=old.requires_grad)
        for group in self.raw.param_groups:
            for place, parameter in enumerate(group["params"]):
                if parameter is old:
                    group["params"][place] = new
                    state = self.raw.state.pop(old, {})
                    self.raw.state[new] = {k: _rows(v, old, rows) for k, v in state.items()}
                    return new
        raise KeyError("no group of the optimiser holds this parameter")

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Every optimised parameter, in the order of the groups."""
        return [p for group in self.raw.param_groups for p in group["params"]]

    def set_rate(self, index: int, total: int) -> float:
        """Set every group's rate for step ``index`` of ``total``; returns the rate of a group with scale 1."""
        schedule: Any = self._config.schedule
        rate = float(self._config.lr) * (1.0 if schedule is None else float(schedule.at(index, total)))
        for group, scale in zip(self.raw.param_groups, self._scales, strict=True):
            group["lr"] = rate * scale
        return rate


def _rows(moment: Any, old: torch.nn.Parameter, rows: torch.Tensor) -> Any:
    """A moment of the shape of ``old`` with other rows; anything else (the step count) as it is."""
    if not isinstance(moment, torch.Tensor) or moment.shape != old.shape:
        return moment
    kept = moment[rows.clamp(min=0)]
    kept[rows < 0] = 0
    return kept
