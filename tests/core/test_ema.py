"""The moving average of networks that keep statistics; the decay itself is tested where the family uses it."""

from __future__ import annotations

import torch
from torch import nn

from core.ema import Average


def test_statistics_are_taken_over_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = Average(model, 0.99)
    for seed in range(3):
        model(5 + 2 * torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(seed)))
        average.update(model)
    assert not torch.equal(model[1].running_mean, torch.zeros(3))
    torch.testing.assert_close(average.model[1].running_mean, model[1].running_mean)
    assert int(average.model[1].num_batches_tracked) == 3
    model(torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(9)))
    assert not torch.equal(average.model[1].running_mean, model[1].running_mean), "it must be a copy"
