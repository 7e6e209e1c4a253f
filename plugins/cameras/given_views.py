"""Data ``given-views``: the pictures that the job was given, alone or beside the views that guidance looks at."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, DataSource, Step
from core.types import Views


class GivenViews(DataSource):
    """A batch holds the given pictures' ``cameras``, ``target`` [R, H, W, 3] and ``target-mask`` [R, H, W, 1],
    and what was given of their depth and normals.

    With ``cameras`` the batch's own views are theirs, and what was given lies beside them under ``reference``: guidance
    looks at the former, losses on pictures at the latter, in one step (RealFusion alternates; the sum is the same).
    """

    class Config(BaseConfig):
        cameras: Annotated[ComponentSpec | None, Slot("data")] = None
        """Draws the views that guidance looks at; null leaves the given pictures alone."""
        batch: int = Field(1, ge=1)
        """Given pictures of each step, each at most once; drawn anew where there are more."""
        size: int = Field(64, ge=8)
        """Their height and width in pixels."""
        background: float = Field(0.5, ge=0, le=1)
        """The grey level they are laid over; the scene's background should be the same."""

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        """The cameras' own signals are given by their own component."""
        return ["image"], ["camera", "target", "target-mask", "target-nearness", "target-normal"]

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._cameras: Any = None if options.cameras is None else context.build(options.cameras)  # type: ignore[misc]

    def batch(self, step: Step) -> dict[str, Any]:
        given = self._given(step)
        return given if self._cameras is None else self._cameras.batch(step) | {"reference": given}

    def split(self) -> int:
        """Of the views that guidance looks at, where there are any: given pictures are looked at in every step."""
        return super().split() if self._cameras is None else self._cameras.split()  # type: ignore[no-any-return]

    def _given(self, step: Step) -> dict[str, Any]:
        o, views = self.options, self._views()
        chosen = torch.randperm(len(views), generator=step.generator("given-views"))[: o.batch]
        return views.targets(chosen, o.background)

    def _views(self) -> Views:
        return self.context.parts["asked"].sized(self.options.size)  # type: ignore[no-any-return]
