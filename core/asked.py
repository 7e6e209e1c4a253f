"""What a job was asked for, a sentence or pictures or both, as any prior hears it from any view."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Away, Prior, PromptProcessor
from core.errors import UserError
from core.types import Cameras, Condition, Render, Views

log = logging.getLogger("maquette")

USUAL_ELEVATION = 15.0
GIVEN_SIZE = 256
"""Side in pixels at which given pictures are kept; whoever looks at them resizes."""


class PictureConfig(BaseConfig):
    """Where a given picture was taken from, and what in it is the object."""

    mask: Path | None = None
    """A picture that is white on the object; null takes the transparency, or removes the background."""
    depth: Path | None = None
    """A picture that is brighter where the object is nearer, on any scale, as estimators of depth write it."""
    normals: Path | None = None
    """A normal map seen from the camera: red to the right, green up, blue towards the viewer, 0.5 for none."""
    removal: Literal["auto", "alpha", "none", "rembg", "classical"] = "auto"
    """How the background is told from the object where no mask is given."""
    elevation: float | None = Field(default=None, ge=-90, le=90)
    """Degrees above the horizon; null has it estimated by a plugin that can, else 15."""
    azimuth: float = 0.0
    """Degrees; 0 says that the picture shows the front."""
    fov: float = Field(default=40.0, gt=0, lt=180)
    """Vertical field of view, degrees."""
    distance: float = Field(default=3.0, gt=0)
    """Of the camera to the object's centre, world units."""
    frame: float | None = Field(default=0.75, gt=0, le=1)
    """Share of the picture's side that the object's longer side takes after cropping; null leaves the framing alone."""


class Asked:
    """The job's sentence and pictures: ``context.parts["asked"]``."""

    def __init__(
        self, prompt: str, negative: str, processor: PromptProcessor, image: Path | None = None,
        picture: PictureConfig | None = None, estimate: Callable[[Views], float | None] | None = None,
        views: Views | None = None,
    ) -> None:  # fmt: skip
        """``views``: given pictures that no file holds."""
        self.prompt, self.negative, self.processor = prompt, negative, processor
        self._image, self._picture = image, picture or PictureConfig()
        self._estimate = estimate
        self._views = views
        self._sized: dict[int, Views] = {}

    @property
    def views(self) -> Views | None:
        """The given pictures, read at the first call; None where none are given.

        Raises:
            UserError: a file cannot be used, with the reason.
        """
        if self._views is None and self._image is not None:
            from core.pictures import is_single  # imaging libraries, not needed by a job without pictures

            self._views = read_given(self._image, self._picture)
            if self._estimate is not None and is_single(self._image):
                self._views = with_elevation(self._views, self._picture, self._estimate)
        return self._views

    def sized(self, size: int) -> Views:
        """The given pictures at ``size`` pixels a side.

        Raises:
            UserError: the job has none.
        """
        if self.views is None:
            raise UserError("this job follows a picture and was given none; set image=FILE")
        if size not in self._sized:
            self._sized[size] = resized(self.views, size)
        return self._sized[size]

    def conditions(
        self, prior: Prior, cameras: Cameras, render: Render | None = None
    ) -> tuple[Condition, Condition, list[Away]]:
        """The condition of each view, its opposite in guidance, and what to move away from.

        Args:
            render: what is seen from the cameras, for priors that are told that.
        """
        texts = self.processor.texts(self.prompt, cameras)
        told = self._told(prior, texts, cameras, render)
        untold = prior.opposite(told, [self.negative] * len(texts), cameras)
        away = [
            Away(self._told(prior, other, cameras, render), share)
            for other, share in self.processor.away(self.prompt, cameras)
        ]
        return told, untold, away + prior.away(told, untold)

    def of_shapes(self, prior: Prior, count: int) -> tuple[Condition, Condition, list[Away]]:
        """As ``conditions``, for ``count`` whole shapes: the sentence as it was written, from no side."""
        told = prior.condition([self.prompt] * count)
        untold = prior.opposite(told, [self.negative] * count)
        return told, untold, prior.away(told, untold)

    def _told(self, prior: Prior, texts: list[str], cameras: Cameras, render: Render | None) -> Condition:
        further: dict[str, Any] = {}  # a prior need not know of what it does not look at
        if prior.looks and self.views is not None:
            further["views"] = self.views
        if prior.sees_render and render is not None:
            further["render"] = render
        return prior.condition(texts, cameras, **further)


def read_given(image: Path, picture: PictureConfig) -> Views:
    """The pictures of a job.

    Raises:
        UserError: a file cannot be used, with the reason.
    """
    from core.pictures import read_views

    p = picture
    return read_views(
        image, mask=p.mask, elevation=USUAL_ELEVATION if p.elevation is None else p.elevation, azimuth=p.azimuth,
        fov=p.fov, distance=p.distance, size=GIVEN_SIZE, background_removal=p.removal, frame=p.frame, depth=p.depth,
        normals=p.normals,
    )  # fmt: skip


def with_elevation(views: Views, picture: PictureConfig, estimate: Callable[[Views], float | None]) -> Views:
    """A single picture whose elevation nobody gave, with the camera that ``estimate`` (degrees) says."""
    found = estimate(views) if picture.elevation is None else None
    if found is None:
        return views
    log.info("the picture seems to be taken from %.0f degrees above the horizon; picture.elevation sets it", found)
    given = views.cameras
    turned = Cameras.orbit(
        given.azimuth, torch.full_like(given.azimuth, found).deg2rad(), given.distance, given.fov_y,
        given.height, given.width,
    )  # fmt: skip
    return replace(views, cameras=turned)


def resized(views: Views, size: int) -> Views:
    """The same pictures at ``size`` pixels a side; colours are averaged where the object is."""

    def scale(x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False).movedim(1, -1)

    mask = scale(views.mask)
    rgb = scale(views.rgb * views.mask) / mask.clamp(min=1e-3)
    nearness = None if views.nearness is None else scale(views.nearness)
    normal = None if views.normal is None else F.normalize(scale(views.normal), dim=-1)
    return Views(rgb.clamp(0, 1), mask, views.cameras.resized(size, size), nearness, normal)
