"""The optimiser's parameters may change their number of rows without losing the moments of those that stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.config.job import OptimizerConfig
from core.optim import ScheduledOptimizer


class _Rows:
    """Just enough of a task."""

    def __init__(self) -> None:
        self.rows, self.other = nn.Parameter(torch.arange(6.0).view(3, 2)), nn.Parameter(torch.ones(2))

    def param_groups(self) -> list[dict[str, object]]:
        return [{"params": [self.rows], "lr_scale": 0.5, "betas": (0.8, 0.9)}, {"params": [self.other]}]


def _step(optimizer: ScheduledOptimizer, task: _Rows) -> None:
    optimizer.raw.zero_grad()
    ((task.rows * torch.arange(1.0, len(task.rows) + 1)[:, None]).sum() + task.other.sum()).backward()
    optimizer.raw.step()


def test_resize_keeps_moments_by_row_and_settings_of_the_group() -> None:
    task = _Rows()
    optimizer = ScheduledOptimizer(task, OptimizerConfig())  # type: ignore[arg-type]
    _step(optimizer, task)
    old = task.rows
    before = {k: v.clone() for k, v in optimizer.raw.state[old].items()}
    rows = torch.tensor([2, 0, 2, -1])
    task.rows = optimizer.resize(old, torch.zeros(4, 2), rows)
    after = optimizer.raw.state[task.rows]
    assert old not in optimizer.raw.state
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(after[name][:3], before[name][[2, 0, 2]])
        assert not after[name][3].any()
    assert after["step"] == before["step"]
    group = optimizer.raw.param_groups[0]
    assert group["params"] == [task.rows] and group["betas"] == (0.8, 0.9) and group["eps"] == 1e-15
    _step(optimizer, task)
    assert torch.isfinite(task.rows).all() and task.rows.ne(0).all()


def test_a_stranger_cannot_be_resized() -> None:
    optimizer = ScheduledOptimizer(_Rows(), OptimizerConfig())  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        optimizer.resize(nn.Parameter(torch.ones(2)), torch.ones(3), torch.tensor([0, 1, -1]))
