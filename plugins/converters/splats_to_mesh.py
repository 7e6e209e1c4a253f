"""Converter ``splats-to-mesh``: the geometry fuses its pictures' depths, this one cleans and decimates."""

from __future__ import annotations

from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Converter, Scene
from core.convert import representations, scene_mesh
from core.errors import UserError
from core.types import Mesh


class SplatsToMesh(Converter):
    """A mesh with a normal and a colour per vertex."""

    class Config(BaseConfig):
        resolution: int = Field(128, ge=8, le=512)
        """Cells along a side of the scene's cube."""
        faces: int | None = Field(30_000, ge=100)
        """At most about this many triangles; null keeps all."""

    def convert(self, scene: Scene) -> Mesh:
        """The mesh; UserError where nothing is seen, or the scene is no set of Gaussians."""
        if "gaussians" not in representations(scene.geometry):
            raise UserError(f"splats-to-mesh needs a set of Gaussians; {type(scene.geometry).__name__} is none")
        return scene_mesh(scene, self.options.resolution, faces=self.options.faces)
