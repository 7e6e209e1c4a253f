"""A small set of splats, a scene of them, and a task that fits one to pictures."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.config.job import OptimizerConfig
from core.contracts import Context, Scene, Step, Task
from core.discovery import get_registry
from core.loop import Loop
from core.testing import reference
from core.testing.check import make_options
from core.types import Cameras
from plugins.splats.splats import SplatSet


def build(kind: str, name: str, context: Context, options: dict[str, Any] | None = None) -> Any:
    registry = get_registry()
    entry = registry.find(kind, name)
    target: Any = entry.load()
    return target(make_options(entry, target, registry, options or {}), context)


def splat_set(seed: int = 0, **options: Any) -> SplatSet:
    made = build("geometry", "splats", Context(seed=seed), {"count": 60} | options)
    assert isinstance(made, SplatSet)
    return made


def scene(**options: Any) -> Scene:
    context = Context()
    parts = context.parts
    parts["geometry"] = build("geometry", "splats", context, {"count": 60} | options)
    for kind, name in (("material", "plain"), ("background", "solid"), ("renderer", "splat-rasterizer")):
        parts[kind] = build(kind, name, context)
    return Scene(parts["geometry"], parts["material"], parts["background"], parts["renderer"], "ball", "a ball")


def ball_scene(count: int = 1500, radius: float = 0.5) -> Scene:
    """Splats on a ball, red in front (+x) and green behind, as they would be after a fit."""
    made = scene()
    index = torch.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, index * math.pi * (3 - 5**0.5)
    flat = (1 - z * z).sqrt()
    normals = torch.stack([flat * turn.cos(), flat * turn.sin(), z], -1)
    red = (normals[:, :1] > 0).float() * 0.8 + 0.1
    from core.types import Points
    from plugins.splats.initial import splats_of

    colors = torch.cat([red, 1 - red, torch.full_like(red, 0.2)], -1)
    made.geometry._take(splats_of(Points(normals * radius, normals, colors), 0.95, 0.6, 0))
    made.geometry.eval()
    return made


class Fit(Task):
    """A scene's geometry is fitted to the pictures of the reference ball."""

    def __init__(self, **options: Any) -> None:
        super().__init__(None, Context())
        made = scene(**options)
        self.geometry, self.renderer = made.geometry, made.renderer
        truth = reference.scene()
        views = torch.arange(6) * math.pi / 3
        full = torch.ones(6)
        self.views = Cameras.orbit(views, 0.3 * full, 3 * full, 0.7 * full, 20, 28)
        with torch.no_grad():
            self.target = truth.renderer(self.views).rgb

    def param_groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self.geometry.param_groups()
        return groups

    def update(self, step: Step) -> None:
        self.geometry.update(step)

    def adapt(self, step: Step, optimizer: Any) -> None:
        self.geometry.adapt(step, optimizer)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        chosen = torch.randperm(6, generator=step.generator("views"))[:2]
        seen = self.renderer(self.views[chosen], step)
        return {"error": (seen.rgb - self.target[chosen]).square().mean()}


def loop_of(task: Task, total: int = 12, **options: Any) -> Loop:
    config = OptimizerConfig(**{"lr": 0.02, "betas": (0.8, 0.97), "eps": 1e-12} | options)
    return Loop(Fabric(accelerator="cpu", devices=1), task, config, total)
