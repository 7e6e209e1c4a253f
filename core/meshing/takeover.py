"""An earlier stage's surface and its colours, for a geometry that goes on from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from core.contracts import Geometry, Scene
from core.errors import UserError
from core.meshing import cleanup
from core.meshing.sampling import sample_surface
from core.meshing.surface import Surface, extract
from core.meshing.texture import density_of, painter, vertex_colours
from core.types import Mesh

F32 = NDArray[np.float32]

SMALLEST = 0.02  # of the largest part's area
ROUNDS = 4  # of smoothing
SAMPLES = 200_000


def surface_of(geometry: Geometry, resolution: int, faces: int, level: float | None = None) -> Surface:
    """The cleaned surface of any geometry, at most about ``faces`` triangles; one with UVs of its own stays as it is.

    A density is cut at ``level``, which None chooses.

    Raises:
        UserError: it has none.
    """
    found = extract(geometry, geometry.context.bound, resolution, level)
    if found is None:
        raise UserError(f"there is nothing to start from: {type(geometry).__name__} has no surface")
    if found.source is not None and found.source.uv is not None:
        return found
    vertices, triangles = cleanup.compact(found.vertices, found.faces)
    if len(triangles):
        vertices, triangles = cleanup.largest_parts(vertices, triangles, SMALLEST)
        if found.source is None:
            vertices = cleanup.taubin(vertices, triangles, ROUNDS)
        vertices, triangles = cleanup.decimate(vertices, cleanup.outwards(vertices, triangles), faces)
    if not len(triangles):
        raise UserError(f"there is nothing to start from: all faces of {type(geometry).__name__} have no area")
    found.vertices, found.faces = vertices, triangles
    return found


class Painted:
    """Colours on and near a surface: [N, 3] sRGB at points [N, 3] with unit normals [N, 3] (and UVs [N, 2])."""

    def __init__(self, surface: Surface, paint: Callable[[F32, F32, F32 | None], F32]) -> None:
        self.surface, self.arrays = surface, paint

    def __call__(self, points: Tensor, normals: Tensor, uv: Tensor | None) -> Tensor:
        arrays = [None if t is None else np.ascontiguousarray(t.detach().cpu().numpy()) for t in (points, normals, uv)]
        return torch.from_numpy(self.arrays(*arrays))  # type: ignore[arg-type]

    @classmethod
    def by(cls, scene: Scene, surface: Surface) -> Painted:
        """As the scene's geometry and material colour it; in a density, where its light stops."""
        paint, density = painter(scene, surface), density_of(scene, surface)

        def colors(points: F32, normals: F32, uv: F32 | None = None) -> F32:
            if density is None:
                return paint(points, normals, uv)
            return vertex_colours(paint, density, surface, points, normals)

        return cls(surface, colors)

    @classmethod
    def of(cls, mesh: Mesh) -> Painted:
        """As a mesh's own texture or vertex colours have it: the colour of the nearest of many points drawn from it."""
        drawn = sample_surface(mesh, SAMPLES, torch.Generator().manual_seed(0))
        assert drawn.colors is not None
        tree, known = cKDTree(drawn.positions.numpy()), drawn.colors.numpy()
        surface = Surface(mesh.vertices.numpy(), mesh.faces.numpy(), source=mesh)

        def colors(points: F32, normals: F32, uv: F32 | None = None) -> F32:
            return np.asarray(known[tree.query(points)[1]], np.float32)

        return cls(surface, colors)
