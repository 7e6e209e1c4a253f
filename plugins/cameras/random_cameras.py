"""Data ``random-cameras``: views round the object, one azimuth in each of ``batch`` equal sectors, or sets of views
that lie at equal azimuths on one circle."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.contracts import DataSource, Step
from core.types import Cameras

Range = tuple[float, float]


class RandomCameras(DataSource):
    """A batch holds ``cameras``; the embedded priors were trained on the default ranges."""

    class Config(BaseConfig):
        batch: int = Field(4, ge=1)
        """Views of each step."""
        orbit: int = Field(1, ge=1)
        """Consecutive views that make a set: one elevation and distance, equal azimuths (multi-view priors take 4)."""
        size: Schedule = Schedule([(0, 64)])
        """Height and width in pixels; a schedule starts coarse (rounded to a multiple of 8)."""
        elevation: Range = (-10.0, 50.0)
        """Degrees above the horizon, uniform."""
        overhead: float = Field(0.0, ge=0, le=1)
        """Share of views from 60 to 85 degrees."""
        distance: Range = (2.8, 3.2)
        """To the origin, in world units."""
        fov: Range = (40.0, 40.0)
        """Vertical field of view, degrees."""

        @field_validator("elevation", "distance", "fov")
        @classmethod
        def _ordered(cls, value: Range) -> Range:
            if value[0] > value[1]:
                raise ValueError(f"a range goes from low to high, not {list(value)}")
            return value

        @model_validator(mode="after")
        def _whole_sets(self) -> RandomCameras.Config:
            if self.batch % self.orbit:
                raise ValueError(f"expected a batch of whole sets of {self.orbit} views (orbit), found {self.batch}")
            return self

        @field_validator("size")
        @classmethod
        def _visible(cls, value: Schedule) -> Schedule:
            if value.extent[0] < 8:
                raise ValueError(f"expected at least 8 pixels, found {value.extent[0]:g}")
            return value

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        """Sets of views are what multi-view priors need."""
        return [], ["camera", "multiview"] if options.orbit > 1 else ["camera"]

    def batch(self, step: Step) -> dict[str, Any]:
        o, generator = self.options, step.generator("cameras")
        n = o.batch // o.orbit
        turn = torch.rand((), generator=generator)
        # Stratified: views that crowd on one side would let the other sides drift for that step.
        jitter = torch.rand(n, generator=generator) * 0.8
        azimuth = (turn + (torch.arange(n) + jitter) / n) * 2 * math.pi / o.orbit
        elevation = _uniform(o.elevation, n, generator)
        above = torch.rand(n, generator=generator) < o.overhead
        elevation = torch.where(above, _uniform((60.0, 85.0), n, generator), elevation)
        distance, fov = _uniform(o.distance, n, generator), _uniform(o.fov, n, generator)
        if o.orbit > 1:
            azimuth = (azimuth[:, None] + torch.arange(o.orbit) * (2 * math.pi / o.orbit)).flatten()
            elevation, distance, fov = (x.repeat_interleave(o.orbit) for x in (elevation, distance, fov))
        size = max(8, round(o.size.at(step.index, step.total) / 8) * 8)
        return {"cameras": Cameras.orbit(azimuth, elevation.deg2rad(), distance, fov.deg2rad(), size, size)}


def _uniform(bounds: Range, n: int, generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator)
