"""Converter ``field-to-mesh``: marching cubes at a level chosen to look like the volume."""

from __future__ import annotations

from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Converter, Scene
from core.convert import scene_mesh
from core.types import Mesh


class FieldToMesh(Converter):
    """A closed mesh with a normal and the material's colour per vertex."""

    class Config(BaseConfig):
        resolution: int = Field(128, ge=8, le=1024)
        """Grid points along a side of the scene's cube."""
        level: float | None = Field(None, gt=0)
        """Density at the surface, per unit length; null finds the one that looks most like the volume."""
        faces: int | None = Field(None, ge=100)
        """At most about this many triangles; null keeps all."""

    def convert(self, scene: Scene) -> Mesh:
        """The mesh; UserError where there is no surface."""
        o = self.options
        return scene_mesh(scene, o.resolution, o.level, o.faces)
