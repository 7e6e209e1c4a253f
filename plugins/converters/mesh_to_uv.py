"""Converter ``mesh-to-uv``: charts by xatlas, for textures to be learned or painted."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Converter, Scene
from core.convert import scene_mesh
from core.meshing.sampling import nearest_colors
from core.meshing.unwrap import unwrap
from core.types import Mesh


class MeshToUv(Converter):
    """A mesh with UVs, normals and the colours of the scene at its vertices; seams double vertices."""

    class Config(BaseConfig):
        faces: int = Field(10_000, ge=100)
        """At most about this many triangles; unwrapping takes seconds beyond 20 000."""
        texture: int = Field(1024, ge=64, le=8192)
        """Side of the atlas in pixels that the charts are spaced for."""
        padding: int = Field(4, ge=1, le=64)
        """Pixels between charts."""
        resolution: int = Field(128, ge=8, le=1024)
        """Grid points along a side of the scene's cube, where the surface is that of a field."""

    def convert(self, scene: Scene) -> Mesh:
        """The mesh; UserError where there is no surface."""
        o = self.options
        mesh = scene_mesh(scene, o.resolution, faces=o.faces)
        flat = unwrap(mesh.vertices.numpy(), mesh.faces.numpy(), o.texture, o.padding, 45.0)
        made = [torch.from_numpy(np.ascontiguousarray(a)) for a in (flat.vertices, flat.faces, flat.normals, flat.uv)]
        return Mesh(made[0], made[1], nearest_colors(made[0], mesh), made[2], made[3])
