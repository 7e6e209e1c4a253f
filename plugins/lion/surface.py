"""From points to a surface, a scene, and a picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from core.contracts import Context
from core.generative.scene import MadeMesh
from core.kernels.splatting.pictures import draw
from core.points.poisson import estimated_normals, poisson_mesh
from core.spherical_harmonics import Y0
from core.types import Cameras, Mesh, Points, Splats

_DOT = 0.018
"""Deviation of a point in pictures, world units."""


class SampledShape(MadeMesh):
    """The surface of points that a lion drew, with the points."""

    def __init__(self, mesh: Mesh, points: Points, context: Context) -> None:
        super().__init__(mesh, context)
        self._points = points

    def cloud(self) -> Points:
        """The points themselves."""
        return self._points


def surface_of(points: Points, bound: float, resolution: int, sigma: float) -> Mesh:
    """The closed surface of points in the scene's cube; normals are estimated where there are none.

    Raises:
        UserError: fewer than four points, or numbers that are not finite.
    """
    at = points.positions.clamp(-0.98 * bound, 0.98 * bound)
    normals = estimated_normals(at) if points.normals is None else points.normals
    return poisson_mesh(at, normals, bound, resolution, sigma)


@torch.no_grad()
def dots(clouds: Tensor, size: int = 96, azimuth: float = 35.0, elevation: float = 20.0) -> Tensor:
    """[B, size, size, 3] pictures in [0, 1] of points [B, N, 3] in the scene's cube, darker where they are nearer."""
    angle = torch.tensor([math.radians(azimuth)])
    cameras = Cameras.turntable(angle, math.radians(elevation), size)
    towards, out = cameras.c2w[0, :3, 2], []
    for cloud in clouds.float().cpu():
        near = ((cloud @ towards + 1) / 2).clamp(0, 1)[:, None]
        color = near * torch.tensor([0.10, 0.22, 0.45]) + (1 - near) * torch.tensor([0.66, 0.76, 0.88])
        turn = torch.tensor([1.0, 0, 0, 0]).expand(len(cloud), 4)
        flat = torch.full((len(cloud), 3), _DOT)
        splats = Splats(cloud, flat, turn, torch.full((len(cloud),), 0.98), ((color - 0.5) / Y0)[:, None])
        seen = draw(splats, cameras)
        out.append((seen.rgb + 1 - seen.opacity)[0].clamp(0, 1))
    return torch.stack(out)


def sheet(rows: list[Tensor]) -> np.ndarray:
    """Pictures [B, S, S, 3] of several rows as one, uint8."""
    whole = torch.cat([torch.cat(list(row), 1) for row in rows])
    return (whole * 255).round().byte().numpy()
