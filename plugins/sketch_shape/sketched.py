"""Geometry ``sketched``: a density field beside a sketch, a coarse mesh of what it should become.

Sketch-Shape (Metzer et al. 2023, "Latent-NeRF for Shape-Guided Generation", section 3.2). The field is any that gives
density; the loss ``sketch-shape`` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import torch
import trimesh
from pydantic import Field
from torch import Tensor

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Geometry, Step
from core.fields import grid_points
from core.kernels.hash_grid import hash_grid
from core.meshing.distance import banded_distance
from core.meshing.files import centred, read_mesh
from core.types import Mesh, Render

if TYPE_CHECKING:
    from core.optim import ScheduledOptimizer

_FAR = 4  # standard deviations of the leniency, beyond which a distance need not be exact


class Sketched(Geometry):
    """The field's density and features; the sketch is a grid of its signed distances, kept in the checkpoint."""

    class Config(BaseConfig):
        field: Annotated[ComponentSpec, Slot("geometry")]
        """The density field that is optimised."""
        file: str = ""
        """The sketch, GLB, OBJ, PLY …; without one a ball. Its inside is where the winding number says so."""
        radius: float = Field(0.7, gt=0)
        """Reach of the sketch once it is centred, world units."""
        leniency: float = Field(0.25, gt=0)
        """sigma, world units: how far from the sketch's surface the field may do as guidance wants."""
        stretch: float = Field(0.2, gt=0)
        """Length over which a density counts as occupancy, 1 - exp(-density stretch); world units."""
        points: int = Field(4096, ge=16)
        """Points of a step at which the two are compared, anywhere in the scene's cube. The paper takes the samples of
        the rendered rays."""
        cells: int = Field(64, ge=8, le=256)
        """Cells per side of the grid that holds the sketch's distances."""

    distance: Tensor  # [1, (cells + 1)^3, 1]: a dense hash level

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        build: Any = context.build
        self.inner: Geometry = build(options.field)
        points = grid_points(context.bound, options.cells + 1).view(-1, 3)
        known = banded_distance(points, self._sketch(), _FAR * options.leniency)
        self.register_buffer("distance", known.float().view(1, -1, 1))

    def _sketch(self) -> Mesh:
        o = self.options
        if o.file:
            return centred(read_mesh(o.file, "geometry.file"), o.radius)
        ball = trimesh.creation.icosphere(3, o.radius)
        return Mesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())

    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups()

    def update(self, step: Step) -> None:
        self.inner.update(step)

    def adapt(self, step: Step, optimizer: ScheduledOptimizer) -> None:
        self.inner.adapt(step, optimizer)

    def field(self, points: Tensor) -> dict[str, Tensor]:
        return self.inner.field(points)

    def density(self, points: Tensor) -> Tensor:
        return self.inner.density(points)

    def along(self, points: Tensor, directions: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return self.inner.along(points, directions, lengths)

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        return self.inner.features(points, uv)

    def sketch_distance(self, points: Tensor) -> Tensor:
        """[N] signed distance to the sketch at points [N, 3] of the scene's cube, world units, negative inside."""
        unit = (points / self.context.bound + 1) / 2
        return hash_grid(unit, self.distance, (self.options.cells,))[:, 0]

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        """``sketch`` at random points; the field's own signals are asked of the field."""
        if signal != "sketch":
            return self.inner.extra(signal, render, step)
        o, generator = self.options, step.generator("sketch")
        points = (torch.rand(o.points, 3, generator=generator) * 2 - 1).to(self.distance.device) * self.context.bound
        with torch.no_grad():
            away = self.sketch_distance(points)
            weight = 1 - torch.exp(-away.square() / (2 * o.leniency**2))
        found = 1 - torch.exp(-o.stretch * self.density(points).float())
        return torch.stack([found, (away < 0).to(found), weight], 1)

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """The field takes over another one, which may have had a sketch too."""
        self.inner.init_from(other.inner if isinstance(other, Sketched) else other, step)
