"""Background ``textured``: a lat-long panorama, from a file, made by formula, or learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.contracts import Background, Context
from core.errors import UserError
from core.panorama import directions, environment, look_up, to_srgb


class Textured(Background):
    """sRGB of the panorama in a direction: row 0 is straight up, the middle column the front (+x)."""

    class Config(BaseConfig):
        path: str = ""
        """A panorama twice as wide as high, any picture format; without one ``environment`` is made."""
        environment: Literal["grey", "studio", "sky"] = "grey"
        """What is made where there is no file."""
        height: int = Field(32, ge=2, le=4096)
        """Rows of the panorama; a file is brought to this size."""
        learn: bool = False
        """Let the colours change."""
        lr: float = Field(0.25, gt=0)
        """Learning rate as a share of the stage's."""

    picture: Tensor  # [1, H, 2 H, 3] logits

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        logits = torch.logit(self._start().clamp(1e-3, 1 - 1e-3))[None]
        if options.learn:
            self.picture = nn.Parameter(logits)
        else:
            self.register_buffer("picture", logits)

    def _start(self) -> Tensor:
        o = self.options
        size = (o.height, 2 * o.height)
        if o.path:
            return _panorama(o.path, size)
        if o.environment == "grey":
            return torch.full((*size, 3), 0.5)
        return to_srgb(environment(o.environment, directions(*size)))

    def forward(self, directions: Tensor) -> Tensor:
        return look_up(torch.sigmoid(self.picture), directions)

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr_scale": self.options.lr}]


def _panorama(path: str, size: tuple[int, int]) -> Tensor:
    """[H, W, 3] of a file, sRGB.

    Raises:
        UserError: no such file, or no picture.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise UserError(f"background.path: there is no file {path}")
    try:
        with Image.open(source) as picture:
            small = picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.BOX)
    except OSError as error:
        raise UserError(f"background.path: {path} cannot be read as a picture: {error}") from error
    return torch.from_numpy(np.asarray(small, np.float32) / 255)
