"""Data ``procedural-views``: posed pictures of one procedural object from all sides, and some that are held out."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.contracts import Context, DataSource, Step
from core.types import Cameras
from plugins.procedural.dataset import FOV_Y_DEG
from plugins.procedural.objects import ProceduralObject, make_object
from plugins.procedural.tracer import render

GOLDEN = math.pi * (3 - math.sqrt(5))


class ProceduralViews(DataSource):
    """A batch holds ``cameras``, ``target`` [B, H, W, 3] over grey 0.5 and ``target-mask`` [B, H, W, 1].

    With a ``stride`` above 1 each batch shows every so-manieth row and column of its pictures, from a random one on:
    the rays are those of the whole picture, so over the steps a renderer sees all of them at a fraction of the cost.
    """

    class Config(BaseConfig):
        category: str | None = None
        """Kind of object; null draws it from the seed."""
        color: str | None = None
        """Its colour, or natural; null draws it from the seed."""
        seed: int = Field(2_000_000, ge=0)
        """Which object of that kind."""
        views: int = Field(64, ge=1)
        """Pictures, spread evenly over a sphere."""
        held_out: int = Field(16, ge=0)
        """Further pictures, between those, which no batch shows."""
        size: int = Field(128, ge=8)
        """Height and width in pixels."""
        distance: float = Field(3.0, gt=1)
        """Of the cameras to the origin, world units."""
        batch: int = Field(4, ge=1)
        """Pictures of each step."""
        stride: int = Field(1, ge=1)
        """Rows and columns to the next one shown; the size should be a multiple of it."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.object: ProceduralObject = make_object(options.seed, options.category, options.color)

    def cameras(self, held_out: bool = False) -> Cameras:
        """All cameras of a part: a Fibonacci spiral over the sphere, the held-out ones half a turn of it away."""
        o = self.options
        count = o.held_out if held_out else o.views
        place = (torch.arange(count) + 0.5) / max(count, 1)
        azimuth = torch.arange(count) * GOLDEN + (1.0 if held_out else 0.0)
        elevation = torch.asin((2 * place - 1) * 0.98)
        far, fov = torch.full_like(place, o.distance), torch.full_like(place, FOV_Y_DEG).deg2rad()
        return Cameras.orbit(azimuth, elevation, far, fov, o.size, o.size)

    def pictures(self, held_out: bool = False) -> tuple[Tensor, Tensor]:
        """Colours [V, H, W, 3] over grey 0.5 and coverage [V, H, W, 1] of all cameras of a part."""
        return self.seen_from(self.cameras(held_out))

    def seen_from(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Colours [V, H, W, 3] over grey 0.5 and coverage [V, H, W, 1] from any cameras of one field of view."""
        height, width, fov = cameras.height, cameras.width, float(cameras.fov_y[0])
        seen = render([self.object], cameras.c2w.cpu().numpy(), fov, height, width, samples=3)
        return torch.from_numpy(seen["rgb"]), torch.from_numpy(seen["mask"])[..., None]

    @cached_property
    def _training(self) -> tuple[Cameras, Tensor, Tensor]:
        return self.cameras(), *self.pictures()

    def batch(self, step: Step) -> dict[str, Any]:
        o, generator = self.options, step.generator("procedural-views")
        chosen = torch.randperm(o.views, generator=generator)[: o.batch]
        x, y = (int(k) for k in torch.randint(o.stride, (2,), generator=generator))
        cameras, rgb, mask = self._training
        rows = slice(y, None, o.stride), slice(x, None, o.stride)
        return {
            "cameras": _every(cameras[chosen], o.stride, x, y),
            "target": rgb[chosen][:, rows[0], rows[1]],
            "target-mask": mask[chosen][:, rows[0], rows[1]],
        }


def _every(cameras: Cameras, stride: int, x: int, y: int) -> Cameras:
    """The cameras whose pixels are every ``stride``-th of these, from column x and row y on."""
    if stride == 1:
        return cameras
    height, width = -(-(cameras.height - y) // stride), -(-(cameras.width - x) // stride)
    principal = (cameras.center - cameras.center.new_tensor([x + 0.5, y + 0.5])) / stride + 0.5
    # The focal length in pixels shrinks by the stride; the picture's height need not, where it is no multiple.
    focal = cameras.focal / stride
    return replace(cameras, fov_y=2 * torch.atan(0.5 * height / focal), height=height, width=width, principal=principal)
