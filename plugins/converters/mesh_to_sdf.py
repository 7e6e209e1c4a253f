"""Converter ``mesh-to-sdf``: distances to a surface at the points of a grid, signed by the winding number."""

from __future__ import annotations

from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Converter, Scene
from core.convert import scene_mesh
from core.fields import grid_points
from core.meshing.distance import banded_distance
from core.types import DistanceGrid


class MeshToSdf(Converter):
    """Exact within ``band`` cells of the surface, right in sign everywhere."""

    class Config(BaseConfig):
        resolution: int = Field(64, ge=8, le=512)
        """Grid points along a side of the scene's cube."""
        band: float = Field(3.0, ge=1)
        """Cells from the surface within which distances are exact."""

    def convert(self, scene: Scene) -> DistanceGrid:
        """The grid; UserError where there is no surface."""
        o, bound = self.options, self.context.bound
        points = grid_points(bound, o.resolution)
        cell = 2 * bound / (o.resolution - 1)
        found = banded_distance(points.view(-1, 3), scene_mesh(scene, max(128, o.resolution)), o.band * cell)
        return DistanceGrid(found.view((o.resolution,) * 3).permute(2, 1, 0).contiguous(), bound)
