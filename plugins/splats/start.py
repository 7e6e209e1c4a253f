"""Points on another representation's surface, from which a set of Gaussians starts."""

from __future__ import annotations

import torch

from core.contracts import Context, Geometry, Scene
from core.errors import UserError
from core.meshing.cleanup import compact, outwards
from core.meshing.sampling import sample_surface
from core.meshing.surface import extract
from core.meshing.texture import density_of, painter, vertex_colours
from core.types import Mesh, Points

_RESOLUTION = 96


def surface_points(geometry: Geometry, scene: Scene | None, count: int, context: Context) -> Points:
    """``count`` points evenly over a geometry's surface, with normals, and colours where they are known.

    Args:
        scene: whose material gives the colours; None takes those of the geometry's own mesh.

    Raises:
        UserError: there is no surface.
    """
    surface = extract(geometry, context.bound, _RESOLUTION)
    if surface is None:
        raise UserError(f"geometry 'splats' cannot start from {type(geometry).__name__}: it has no surface")
    vertices, faces = compact(surface.vertices, surface.faces)
    faces = outwards(vertices, faces)
    mesh = Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))
    if scene is None and surface.source is not None:
        mesh = surface.source
    points = sample_surface(mesh, count, context.generator("splats-start"))
    colors = points.colors
    if scene is not None:
        assert points.normals is not None
        at, normals = (x.detach().float().cpu().numpy() for x in (points.positions, points.normals))
        density = density_of(scene, surface)
        colors = torch.from_numpy(vertex_colours(painter(scene, surface), density, surface, at, normals))
    return Points(points.positions.detach(), points.normals, colors)
