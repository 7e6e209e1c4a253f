"""Background ``neural``: a small network of the direction (Poole et al. 2022, appendix A.2)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.contracts import Background, Context, Step


class Neural(Background):
    """sRGB = sigmoid(network(harmonics(direction))); starts at mid grey."""

    class Config(BaseConfig):
        harmonics: int = Field(3, ge=1, le=8)
        """Octaves of sines and cosines of the direction."""
        hidden: int = Field(16, ge=1)
        """Width of the hidden layer."""
        random: float = Field(0.0, ge=0, le=1)
        """Share of the steps in which one random colour takes its place, so that the object does not fade into it."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        inputs = 6 * options.harmonics
        generator = context.generator("neural-background")
        self.first, self.second = nn.Linear(inputs, options.hidden), nn.Linear(options.hidden, 3)
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(self.first.weight.shape, generator=generator) * inputs**-0.5)
            self.first.bias.zero_()
            self.second.weight.copy_(torch.randn(self.second.weight.shape, generator=generator) * 1e-2)
            self.second.bias.zero_()
        self._instead: Tensor | None = None

    def update(self, step: Step) -> None:
        """Draw whether this step shows a random colour, and which."""
        share, *colour = torch.rand(4, generator=step.generator("random-background")).tolist()
        self._instead = torch.tensor(colour) if share < self.options.random else None

    def forward(self, directions: Tensor) -> Tensor:
        if self._instead is not None and torch.is_grad_enabled():
            return self._instead.to(directions).expand_as(directions)
        octaves = 2.0 ** torch.arange(self.options.harmonics, device=directions.device, dtype=directions.dtype)
        angles = (directions[..., None, :] * octaves[:, None]).flatten(-2)
        code = torch.cat([angles.sin(), angles.cos()], -1)
        return torch.sigmoid(self.second(torch.relu(self.first(code))))

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr_scale": 0.1}]
