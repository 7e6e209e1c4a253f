"""Background ``solid``: one colour."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.contracts import Background, Context

Channel = Annotated[float, Field(ge=0, le=1)]


class Solid(Background):
    """The same sRGB colour in every direction; a learned one is the sigmoid of three parameters."""

    class Config(BaseConfig):
        color: tuple[Channel, Channel, Channel] = (0.5, 0.5, 0.5)
        """sRGB in [0, 1]; the embedded priors were trained on the default."""
        learn: bool = False
        """Let the colour change from there."""
        lr: float = Field(0.1, gt=0)
        """Learning rate of a learned colour as a share of the stage's."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        if options.learn:
            self.logit = nn.Parameter(torch.logit(torch.tensor(options.color).clamp(1e-3, 1 - 1e-3)))

    def forward(self, directions: Tensor) -> Tensor:
        if self.options.learn:
            return torch.sigmoid(self.logit).to(directions).expand_as(directions)
        return directions.new_tensor(self.options.color).expand_as(directions)

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr_scale": self.options.lr}] if self.options.learn else []
