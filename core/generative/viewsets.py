"""Generators that denoise a set of views of one object together: what they train on, and how they are sampled.

How the views become a scene is each one's own; how many are clean, where cameras stand when nothing is given, samples
and previews are here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from core.contracts import Scene, Step
from core.errors import UserError
from core.generative.through_rendering import Code, ThroughRendering, ThroughRenderingConfig
from core.types import Cameras

if TYPE_CHECKING:
    from core.asked import Asked

_CHUNK = 8


class ViewsetConfig(ThroughRenderingConfig):
    """What such a generator is told."""

    batch: int = Field(4, ge=1)
    """Objects of a training step."""
    clean: list[float] = Field([0.5, 0.3, 0.2], min_length=1)
    """Shares of the steps in which the network sees 0, 1, 2 … clean views."""
    unseen: float = Field(0.5, ge=0)
    """Weight of a view that the network does not see."""
    sampled: int = Field(3, ge=1)
    """Noisy views that are denoised together when sampling."""
    elevation: float = Field(20.0, ge=-90, le=90)
    """Of the cameras of those views where no view is given, degrees."""
    distance: float = Field(3.0, gt=1)
    """Likewise, world units."""
    fov: float = Field(40.0, gt=0, lt=180)
    """Likewise, degrees of vertical field of view."""

    @field_validator("clean")
    @classmethod
    def _shares(cls, value: list[float]) -> list[float]:
        if min(value) < 0 or not sum(value):
            raise ValueError("expected shares, at least 0 and not all 0")
        return value


class ViewsetGenerator(ThroughRendering):
    """Some views of an object are clean, others share one level of noise; one more is never shown, yet rendered too.

    Without that last one nothing asks the scene to look right from elsewhere.
    """

    @abstractmethod
    def noisy_beside(self, clean: int, generator: torch.Generator | None = None) -> int:
        """How many noisy views stand beside so many clean ones in a training step; the most there may be without a
        ``generator``."""

    def check(self) -> None:
        super().check()
        o, data = self.options, self.data.options
        needed = max(c + self.noisy_beside(c) for c in range(len(o.clean))) + 1
        if data.views < needed:
            raise UserError(
                f"data.views={data.views} is too little: with up to {len(o.clean) - 1} clean views, noisy ones and one "
                f"that is not shown, a step needs {needed} of each object"
            )
        if data.images < data.views:
            raise UserError(f"data.images={data.images} is too little: one object has data.views={data.views}")

    def training_step(self, step: Step) -> dict[str, Tensor]:
        o, draw = self.options, step.generator("viewset")
        clean = int(torch.multinomial(torch.tensor(o.clean), 1, generator=draw))
        noisy = self.noisy_beside(clean, draw)
        rgb, cameras = self.drawn_views(o.batch, clean + noisy + 1, draw)
        level = torch.randint(1, self.process.steps, (o.batch, 1), generator=draw).to(rgb.device)
        t = torch.cat([level.new_zeros(o.batch, clean), level.expand(-1, noisy)], 1)
        return self.denoising_losses(rgb, cameras, t, o.unseen, step)

    def around(
        self, count: int, clean: Cameras | None, generator: torch.Generator, views: int | None = None
    ) -> Cameras:
        """The ``count`` times ``sampled`` cameras of the noisy views: spread over a circle, from the first given
        camera on, or from a random azimuth."""
        o, views = self.options, views or self.options.sampled
        if clean is None:
            first = torch.rand(count, 1, generator=generator) * 2 * math.pi
            place = torch.arange(views) / views
            told = (math.radians(o.elevation), o.distance, math.radians(o.fov))
            tilt, far, fov = (torch.full((count * views,), v) for v in told)
        else:
            own = clean[torch.arange(0, len(clean), len(clean) // count)].to("cpu")
            first, place = own.azimuth[:, None], torch.arange(1, views + 1) / (views + 1)
            tilt, far, fov = (v.repeat_interleave(views) for v in (own.elevation, own.distance, own.fov_y))
        azimuth = (first + place * 2 * math.pi).flatten()
        return Cameras.orbit(azimuth, tilt, far, fov, self.size, self.size).to(self.device)

    @torch.no_grad()
    def draw(
        self, count: int, clean: tuple[Tensor, Cameras] | None, generator: torch.Generator, steps: int | None = None
    ) -> list[Code]:
        """``count`` scenes under clean views [count, C, 3, S, S] in [-1, 1] and their cameras, or under none."""
        codes: list[Code] = []
        for first in range(0, count, _CHUNK):
            some = min(_CHUNK, count - first)
            own = None
            if clean is not None:
                views = clean[0].shape[1]
                own = clean[0][first : first + some], clean[1][slice(first * views, (first + some) * views)]
            cameras = self.around(some, None if own is None else own[1], generator)
            shape = (some, len(cameras) // some, 3, self.size, self.size)
            codes += self.walk(torch.randn(shape, generator=generator).to(self.device), cameras, own, steps=steps)
        return codes

    def sample(self, count: int, asked: Asked | None, generator: torch.Generator) -> list[Scene | Tensor]:
        """``count`` objects: any, or what given pictures show, each with other sides of its own.

        Raises:
            UserError: something was asked for in words alone.
        """
        return [self.scene(code) for code in self.draw(count, self.given(asked, count), generator)]

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Three rows: pictures, what is drawn from the first of each four from their cameras, and four from nothing."""
        generator, look = torch.Generator().manual_seed(0), self.average.model["look"]
        rgb, cameras = self.drawn_views(2, 4, generator)
        firsts = cameras[torch.tensor([0, 4])]
        told = self.draw(2, (rgb[:, :1], firsts), generator, steps=8)
        free = self.draw(2, None, generator, steps=8)
        around = self.around(2, None, generator, views=4)
        rows = [rgb, self.pictures(look, told, cameras), self.pictures(look, free, around)]
        sheet = torch.cat([torch.cat(list(row.flatten(0, 1)), 2) for row in rows], 1)
        return {"samples": ((sheet / 2 + 0.5).clamp(0, 1) * 255).byte().movedim(0, 2).cpu().numpy()}
