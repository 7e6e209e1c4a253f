"""Exporter ``point-ply``: a cloud of points with normals, as PLY."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Exporter, Scene
from core.convert import scene_mesh
from core.meshing.sampling import sample_surface
from core.points.poisson import estimated_normals
from core.types import Points


class PointPlyExporter(Exporter):
    """Writes ``<name>-points.ply``: a shape's own points where it was made of points, else points of its surface."""

    class Config(BaseConfig):
        count: int = Field(default=4096, ge=4)
        """Points that are drawn of a surface."""
        resolution: int = Field(default=128, ge=8, le=1024)
        """Grid points along a side of the scene's cube, where the surface is that of a field."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        with torch.no_grad():
            points = self._points(scene)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{scene.name}-points.ply"
        path.write_bytes(points_bytes(points))
        yield path

    def _points(self, scene: Scene) -> Points:
        own = getattr(scene.geometry, "cloud", None)
        if own is not None:
            found: Points = own()
            return found
        mesh = scene_mesh(scene, self.options.resolution)
        return sample_surface(mesh, self.options.count, self.context.generator("point-ply"))


def points_bytes(points: Points) -> bytes:
    """A little-endian PLY in the world's axes; normals are estimated where there are none, colours left out then."""
    at = points.positions.detach().float().cpu()
    normals = estimated_normals(at) if points.normals is None else points.normals.detach().float().cpu()
    names = ["x", "y", "z", "nx", "ny", "nz"]
    row = [(name, "<f4") for name in names]
    header = [f"property float {name}" for name in names]
    if points.colors is not None:
        row += [(name, "u1") for name in ("red", "green", "blue")]
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    table = np.empty(len(at), row)
    for k, name in enumerate(names):
        table[name] = torch.cat([at, normals], 1)[:, k].numpy()
    if points.colors is not None:
        colors = (points.colors.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
        for k, name in enumerate(("red", "green", "blue")):
            table[name] = colors[:, k]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(at)}", *header, "end_header\n"]
    return "\n".join(lines).encode() + table.tobytes()
