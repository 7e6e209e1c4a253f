"""A tiny lsgm on made-up pictures."""

from __future__ import annotations

from typing import Any

import torch

from core.config.base import ComponentSpec
from core.config.base import Config as BaseConfig
from core.contracts import Context, DataSource, Step
from plugins.lsgm.lsgm import Lsgm


class Squares(DataSource):
    """Bright squares of two sizes on grey."""

    class Config(BaseConfig):
        images: int = 64
        batch: int = 8
        size: int = 16
        split: str = "train"
        seed: int = 0

    def batch(self, step: Step) -> dict[str, Any]:
        index = torch.randint(self.options.images, (self.options.batch,), generator=step.generator("data"))
        return self.take(index.numpy())

    def take(self, index: Any) -> dict[str, Any]:
        n = self.options.size
        rgb = torch.full((len(index), n, n, 3), 0.5)
        for k, i in enumerate(index):
            side = n // 4 if i % 2 else n // 2
            x, y = int(i) % (n - side), int(i) * 7 % (n - side)
            rgb[k, x : x + side, y : y + side] = torch.tensor([0.9, 0.2 + 0.01 * (int(i) % 50), 0.1])
        return {"rgb": rgb}


SIZES: dict[str, Any] = {
    "size": 16,
    "vae": {"channels": 8, "widths": [1, 2], "latent_channels": 3, "outer_cells": 1},
    "score": {"channels": 8, "widths": [1, 1], "blocks": 1, "attention": [], "dropout": 0.0},
}


def tiny(
    train: str = "joint", previous: Lsgm | None = None, data: dict[str, Any] | None = None, **options: Any
) -> Lsgm:
    """The task, built as a stage builds it."""
    spec = ComponentSpec("data", "squares", None)
    made = Lsgm.Config(data=spec, train=train, **(SIZES | options))  # type: ignore[arg-type]
    context = Context(build=lambda _: Squares(Squares.Config(**(data or {})), Context()))
    if previous is not None:
        context.parts["previous"] = previous
    return Lsgm(made, context).train()
