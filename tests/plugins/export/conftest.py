"""Analytic scenes and a small volume renderer, so that every exported number has a closed form to be held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core.config.base import Config
from core.contracts import Background, Context, Geometry, Material, Renderer, Scene, Step
from core.types import Cameras, Render

Distance = Callable[[Tensor], Tensor]
Colour = Callable[[Tensor], Tensor]


class FieldGeometry(Geometry):
    """Density ``peak * sigmoid(-distance / softness)`` round an analytic distance (a step where softness is 0)."""

    def __init__(self, distance: Distance, colour: Colour, peak: float = 80.0, softness: float = 0.004) -> None:
        super().__init__(Config(), Context())
        self.distance, self.colour, self.peak, self.softness = distance, colour, peak, softness
        self.asked = 0

    def density(self, points: Tensor) -> Tensor:
        self.asked += len(points)
        distance = self.distance(points)
        if self.softness == 0:
            return self.peak * (distance < 0).float()
        return self.peak * torch.sigmoid(-distance / self.softness)

    def field(self, points: Tensor) -> dict[str, Tensor]:
        return {"density": self.density(points), "features": self.colour(points)}


class Plain(Material):
    """Features are the colour."""

    def forward(self, features: Tensor, points: Tensor, directions: Tensor, normals: Any, light: Any = None) -> Tensor:
        return features


class Teal(Background):
    """One colour that is not white, so that a forgotten background shows."""

    def forward(self, directions: Tensor) -> Tensor:
        return directions.new_tensor([0.1, 0.5, 0.6]).expand_as(directions)


class Marcher(Renderer):
    """Emission and absorption by even steps (Max 1995); normals from finite differences of the density."""

    samples = 64

    def forward(self, cameras: Cameras, step: Step | None = None) -> Render:
        origins, directions = (a.reshape(-1, 3) for a in cameras.rays())
        axis = torch.repeat_interleave(-cameras.c2w[:, :3, 2], cameras.height * cameras.width, 0)
        rays = zip(origins.split(8192), directions.split(8192), axis.split(8192), strict=True)
        seen = [self.march(*ray) for ray in rays]
        shape = (len(cameras), cameras.height, cameras.width)
        rgb, opacity, depth, normal = (torch.cat(part).reshape(*shape, -1) for part in zip(*seen, strict=True))
        return Render(rgb, opacity, cameras, depth, normal)

    def march(self, origins: Tensor, directions: Tensor, axis: Tensor) -> tuple[Tensor, ...]:
        geometry, background = self.context.parts["geometry"], self.context.parts["background"]
        middle = -(origins * directions).sum(-1)
        reach = 1.0 - (origins + directions * middle[:, None]).norm(dim=-1)
        near, width = middle - 1.0, 2.0 / self.samples
        t = near[:, None] + (torch.arange(self.samples) + 0.5) * width
        points = origins[:, None] + directions[:, None] * t[..., None]
        sigma = torch.zeros_like(t)
        sigma[reach > 0] = geometry.density(points[reach > 0].reshape(-1, 3)).reshape(-1, self.samples)
        trans = torch.exp(-torch.cumsum(sigma * width, 1))
        weights = torch.cat([torch.ones_like(trans[:, :1]), trans[:, :-1]], 1) - trans
        opacity = weights.sum(1, keepdim=True)
        mean = (weights * t).sum(1, keepdim=True) / opacity.clamp(min=1e-6)
        # One colour per ray is enough here: it is constant across the thin wall that light stops in.
        surface = origins + directions * mean
        rgb = geometry.field(surface)["features"] * opacity + background(directions) * (1 - opacity)
        depth = torch.where(opacity > 0.05, mean * (directions * axis).sum(-1, keepdim=True), 0)
        return rgb, opacity, depth, self.normals(geometry, surface) * opacity

    def normals(self, geometry: Any, points: Tensor) -> Tensor:
        step = 2e-3 * torch.eye(3)
        ends = [geometry.distance(points + s) - geometry.distance(points - s) for s in step]
        return torch.nn.functional.normalize(torch.stack(ends, -1), dim=-1)


def make_scene(geometry: Geometry, name: str = "thing", prompt: str = "") -> Scene:
    """A whole scene round a geometry."""
    background = Teal(Config(), Context())
    context = Context(parts={"geometry": geometry, "background": background})
    return Scene(geometry, Plain(Config(), Context()), background, Marcher(Config(), context), name, prompt)


def ball(points: Tensor, radius: float, center: tuple[float, float, float]) -> Tensor:
    """Distance to a sphere."""
    return (points - points.new_tensor(center)).norm(dim=-1) - radius


def cuboid(points: Tensor, half: tuple[float, float, float], center: tuple[float, float, float]) -> Tensor:
    """Distance to a box with sharp edges."""
    q = (points - points.new_tensor(center)).abs() - points.new_tensor(half)
    return q.clamp(min=0).norm(dim=-1) + q.max(-1).values.clamp(max=0)


def swirl(points: Tensor) -> Tensor:
    """Smooth colours that differ everywhere."""
    waves = [torch.sin(points @ points.new_tensor(k) + p) for k, p in (((3, 1, 0), 0), ((0, 4, 1), 1), ((1, 0, 5), 2))]
    return torch.stack(waves, -1) * 0.4 + 0.5


def _totem_parts(points: Tensor) -> Tensor:
    parts = [
        cuboid(points, (0.3, 0.45, 0.25), (0.0, 0.0, -0.45)),
        ball(points, 0.36, (0.0, 0.0, 0.12)),
        ball(points, 0.12, (0.38, 0.0, 0.14)),
        ball(points, 0.10, (0.0, 0.40, 0.2)),
    ]
    return torch.stack(parts)


def totem(points: Tensor) -> Tensor:
    """A ball on a box with sharp edges, a nose at its front (+x) and a knob on its left (+y)."""
    return _totem_parts(points).min(0).values


def paintwork(points: Tensor) -> Tensor:
    """The totem's colours: bands on the box, a red nose, a green knob, an orange ball with a blue cap."""
    part = _totem_parts(points).argmin(0)
    table = [[0.93, 0.9, 0.82], [0.92, 0.62, 0.25], [0.85, 0.1, 0.12], [0.15, 0.6, 0.25]]
    colour = points.new_tensor(table)[part]
    colour[(part == 1) & (points[:, 2] > 0.33)] = points.new_tensor([0.16, 0.32, 0.72])
    band = (part == 0) & (torch.floor((points[:, 1] + 1) / 0.15) % 2 == 0)
    colour[band] = points.new_tensor([0.45, 0.28, 0.6])
    return colour


@pytest.fixture
def field_scene() -> Callable[..., Scene]:
    """``field_scene(distance, colour=swirl, peak=…, softness=…)``: a scene of one density field."""

    def make(
        distance: Distance, colour: Colour = swirl, name: str = "thing", prompt: str = "", **options: float
    ) -> Scene:
        return make_scene(FieldGeometry(distance, colour, **options), name, prompt)

    return make
