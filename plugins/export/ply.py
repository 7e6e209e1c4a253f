"""Binary PLY: the dense mesh with a colour and a normal per vertex, in the project's own axes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import trimesh
from pydantic import Field

from core.contracts import Exporter, Scene
from core.types import Mesh
from plugins.export.assets import SurfaceConfig, coloured_mesh, destination, once, skipped, to_bytes


def ply_bytes(mesh: Mesh) -> bytes:
    """A mesh with normals and colours as a little-endian PLY, z up (the format names no axes)."""
    arrays = (mesh.vertices, mesh.faces, mesh.normals, mesh.colors)
    vertices, faces, normals, colours = (np.asarray(a.detach().cpu()) for a in arrays if a is not None)
    body = trimesh.Trimesh(vertices, faces, vertex_normals=normals, vertex_colors=to_bytes(colours), process=False)
    data: bytes = trimesh.exchange.ply.export_ply(body, vertex_normal=True)
    return data


class PlyExporter(Exporter):
    """Writes ``<name>.ply``."""

    class Config(SurfaceConfig):
        faces: int = Field(60_000, ge=100)
        """At most about this many triangles; colours are as fine as they are."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        key = ("export.coloured", repr(self.options.model_dump()))
        mesh = once(scene, key, lambda: coloured_mesh(scene, self.options, self.options.faces))
        if mesh is None:
            skipped(scene, ".ply")
            return
        path = destination(scene, folder, ".ply")
        path.write_bytes(ply_bytes(mesh))
        yield path
