"""Converter ``mesh-to-splats``: one flat Gaussian per sampled point, lying in the surface (as SuGaR binds them).

Guédon and Lepetit 2024, "SuGaR", section 4.2, in the simplest form: spread by area instead of by triangle.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Converter, Scene
from core.convert import scene_mesh
from core.meshing.normals import face_vectors
from core.meshing.sampling import sample_surface
from core.spherical_harmonics import Y0
from core.types import Splats


class MeshToSplats(Converter):
    """Gaussians whose third axis is the normal; their discs cover the surface about twice."""

    class Config(BaseConfig):
        count: int = Field(10_000, ge=1)
        """Gaussians."""
        opacity: float = Field(0.95, gt=0, lt=1)
        """Of each."""
        thickness: float = Field(0.1, gt=0, le=1)
        """Deviation along the normal as a share of that in the surface."""
        resolution: int = Field(128, ge=8, le=1024)
        """Grid points along a side of the scene's cube, where the surface is that of a field."""

    def convert(self, scene: Scene) -> Splats:
        """The set; UserError where there is no surface."""
        o = self.options
        mesh = scene_mesh(scene, o.resolution)
        points = sample_surface(mesh, o.count, self.context.generator("mesh-to-splats"))
        area = float(face_vectors(mesh.vertices, mesh.faces).norm(dim=-1).sum()) / 2
        # A disc of one deviation round each point: twice the area, so that neighbours blend.
        deviation = math.sqrt(2 * area / (math.pi * o.count))
        scales = points.positions.new_tensor([deviation, deviation, deviation * o.thickness]).expand(o.count, 3)
        normals, colors = points.normals, points.colors
        if normals is None or colors is None:
            raise RuntimeError("a scene's mesh has colours, and samples have normals")
        opacities = torch.full((o.count,), o.opacity)
        sh = ((colors - 0.5) / Y0)[:, None]
        return Splats(points.positions, scales.contiguous(), turn_up(normals), opacities, sh)


def turn_up(normals: Tensor) -> Tensor:
    """[N, 4] unit quaternions (w, x, y, z) of the shortest turn from +z to unit ``normals`` [N, 3]."""
    x, y, z = normals.unbind(-1)
    turned = torch.stack([1 + z, -y, x, torch.zeros_like(z)], -1)
    half = normals.new_tensor([0.0, 1.0, 0.0, 0.0])  # -z is half a turn away, about any horizontal axis
    return F.normalize(torch.where(z[:, None] < -1 + 1e-6, half, turned), dim=-1)
