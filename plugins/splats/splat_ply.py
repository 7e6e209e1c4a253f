"""Exporter ``splat-ply``: the Gaussians themselves, for splat viewers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Exporter, Scene
from core.errors import UserError
from core.types import Splats
from plugins.splats.ply_format import ply_bytes


class SplatPlyExporter(Exporter):
    """Writes ``<name>-splats.ply``: the world's own axes (z up, front +x), world units."""

    class Config(BaseConfig):
        least_opacity: float = Field(1 / 255, ge=0, lt=1)
        """Gaussians fainter than this are left out."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        with torch.no_grad():
            splats = scene.geometry.splats()
            kept = splats.opacities >= self.options.least_opacity
            names = ("means", "scales", "rotations", "opacities", "sh")
            splats = Splats(*(getattr(splats, name)[kept] for name in names))
        if not len(splats):
            raise UserError(f"no Gaussian of the scene is more opaque than {self.options.least_opacity:g}")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{scene.name}-splats.ply"
        path.write_bytes(ply_bytes(splats))
        yield path
