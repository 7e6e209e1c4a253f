"""The exponential moving average of a network's weights, which is what is sampled, evaluated and saved."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """Exponential moving average of a model's parameters, part of the checkpoint.

    The decay rises as (1 + n) / (10 + n) up to ``decay``, so that short runs are not held back by their start. Buffers
    (the statistics of a batch norm) are taken over as they are: they are averages already.
    """

    count: Tensor

    def __init__(self, model: Any, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.model: Any = copy.deepcopy(model).requires_grad_(False).eval()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, model: Any) -> None:
        """Move towards ``model``."""
        n = int(self.count)
        weight = 1.0 - min(self.decay, (1 + n) / (10 + n))
        mine, theirs = list(self.model.parameters()), [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(mine, theirs, weight)
        for own, other in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(other)
        self.count.add_(1)
