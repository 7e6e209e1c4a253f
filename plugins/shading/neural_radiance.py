"""Material ``neural-radiance``: colour that depends on the view (Mildenhall et al. 2020), read as harmonics."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.contracts import Context, Material
from core.errors import UserError
from core.spherical_harmonics import harmonics


class NeuralRadiance(Material):
    """sRGB = sigmoid(features[:3] + network(features, harmonics(direction))); the network starts at 0."""

    class Config(BaseConfig):
        channels: int = Field(3, ge=3)
        """Features that are read; geometry.channels must be at least as many."""
        degree: int = Field(3, ge=1, le=3)
        """Of the spherical harmonics of the direction."""
        hidden: int = Field(32, ge=1)
        """Width of the hidden layer."""
        lr: float = Field(0.1, gt=0)
        """Learning rate as a share of the stage's."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.feature_channels = options.channels
        inputs = options.channels + (options.degree + 1) ** 2
        generator = context.generator("neural-radiance")
        self.first, self.second = nn.Linear(inputs, options.hidden), nn.Linear(options.hidden, 3)
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(self.first.weight.shape, generator=generator) * inputs**-0.5)
            self.first.bias.zero_()
            self.second.weight.zero_()
            self.second.bias.zero_()

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        count = self.options.channels
        if features.shape[-1] < count:
            raise UserError(
                f"material neural-radiance reads {count} features and the geometry gives {features.shape[-1]}; set "
                f"geometry.channels={count}"
            )
        code = torch.cat([features[:, :count], harmonics(directions, self.options.degree)], -1)
        return torch.sigmoid(features[:, :3] + self.second(torch.relu(self.first(code))))

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr_scale": self.options.lr}]
