"""Background ``solid``: one colour."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.contracts import Background

Channel = Annotated[float, Field(ge=0, le=1)]


class Solid(Background):
    """The same sRGB colour in every direction."""

    class Config(BaseConfig):
        color: tuple[Channel, Channel, Channel] = (0.5, 0.5, 0.5)
        """sRGB in [0, 1]; the embedded priors were trained on the default."""

    def forward(self, directions: Tensor) -> Tensor:
        return directions.new_tensor(self.options.color).expand_as(directions)

    def param_groups(self) -> list[dict[str, Any]]:
        return []
