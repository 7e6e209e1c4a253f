"""Converter ``field-to-tetrahedra``: builds the geometry ``tetrahedra`` and lets it start from the scene."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Converter, Geometry, Scene


class FieldToTetrahedra(Converter):
    """The scene's signed distance at the vertices of a tetrahedral grid, or the distance to its surface."""

    class Config(BaseConfig):
        resolution: int = Field(64, ge=4, le=256)
        """Cells along a side of the scene's cube."""

    def convert(self, scene: Scene) -> Geometry:
        """The geometry; UserError where there is no surface."""
        target = self.context.parts["registry"].find("geometry", "tetrahedra").load()
        made: Geometry = target(target.Config(resolution=self.options.resolution), replace(self.context, parts={}))
        made.start_from(scene)
        return made
