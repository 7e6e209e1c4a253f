"""A closed surface from a density field, a signed distance or a geometry that already is a mesh."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from core.contracts import Geometry
from core.meshing.level import iso_level
from core.types import Mesh

log = logging.getLogger("maquette")

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Field = Callable[[F32], F32]

_CHUNK = 1 << 18
_HUGE = 1e6


@dataclass
class Surface:
    """Triangles in world units, counter-clockwise seen from outside.

    Attributes:
        vertices: [V, 3] float32.  faces: [F, 3] int64.
        cell: spacing of the grid it was found on, world units; 0 for a mesh that came as one.
        soft: whether it is a level of a density, whose colour is best looked for a little inside.
        level: the density level, or 0.
        source: the geometry's own mesh where it gave one.
    """

    vertices: F32
    faces: I64
    cell: float = 0.0
    soft: bool = False
    level: float = 0.0
    source: Mesh | None = None


def overrides(geometry: Geometry, *names: str) -> bool:
    """Whether the geometry's class defines any of these methods itself."""
    return any(getattr(type(geometry), n, None) is not getattr(Geometry, n) for n in names)


def sampler(geometry: Geometry, name: str) -> Field:
    """``geometry.density`` or ``.sdf`` as a function of arrays, in chunks, without gradients.

    Values that are not finite count as empty space (and infinite density as very dense).
    """
    device = geometry.context.device
    evaluate = getattr(geometry, name)
    empty = 0.0 if name == "density" else _HUGE

    def field(points: F32) -> F32:
        values = np.empty(len(points), np.float32)
        with torch.no_grad():
            for start in range(0, len(points), _CHUNK):
                part = torch.from_numpy(np.ascontiguousarray(points[start : start + _CHUNK], np.float32))
                values[start : start + _CHUNK] = evaluate(part.to(device)).float().reshape(-1).cpu().numpy()
        return np.nan_to_num(values, nan=empty, posinf=_HUGE, neginf=-_HUGE)

    return field


def _at(field: Field, indices: I64, bound: float, resolution: int) -> F32:
    spacing = 2 * bound / (resolution - 1)
    return field((indices * spacing - bound).astype(np.float32))


def density_grid(field: Field, bound: float, resolution: int) -> F32:
    """[R, R, R] densities at the grid's points, ``x`` first, from -bound to bound.

    The points whose indices are all even or all odd (a quarter) are asked first; the others only where one of
    these within two cells is not empty. Every point has such a neighbour within one cell, and an axis-aligned
    sheet of one cell is never missed.
    """
    index = np.indices((resolution,) * 3).reshape(3, -1).T
    parity = (index & 1).sum(1)
    probe = (parity == 0) | (parity == 3)
    values = np.zeros(len(index), np.float32)
    values[probe] = np.maximum(_at(field, index[probe], bound, resolution), 0)
    cell = 2 * bound / (resolution - 1)
    threshold = min(0.01 / cell, 0.05 * float(values.max()))
    shape = (resolution,) * 3
    hit = (values > threshold).reshape(shape)
    for axis in range(3):
        hit = ndimage.maximum_filter1d(hit, 5, axis=axis, mode="constant")
    rest = hit.reshape(-1) & ~probe
    values[rest] = np.maximum(_at(field, index[rest], bound, resolution), 0)
    return values.reshape(shape)


def fill_cavities(inside: F32, level: float, full: float) -> F32:
    """Close the hollows that nothing outside can see: their walls would cost faces and texture.

    ``inside`` [X, Y, Z] grows inwards and its border is outside; a copy is returned, ``full`` in the hollows.
    """
    labels, count = ndimage.label(inside <= level)
    if count <= 1:
        return inside
    return np.where((labels > 0) & (labels != labels[0, 0, 0]), np.float32(full), inside)


def triangulate(values: F32, level: float, outside: float, full: float) -> tuple[F32, I64]:
    """Vertices in grid indices and faces of ``values > level``; empty when there are none."""
    padded = np.pad(values, 1, constant_values=np.float32(outside))
    if not (padded > level).any():
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64)
    padded = fill_cavities(padded, level, full)
    vertices, faces, _, _ = marching_cubes(padded, level, allow_degenerate=False)
    # The library winds its triangles clockwise seen from the lower values.
    return (vertices - 1).astype(np.float32), faces[:, ::-1].astype(np.int64)


def _settle(vertices: F32, grid: F32, value: Field, level: float, bound: float) -> F32:
    """Move each vertex along its grid edge to where the field itself crosses ``level``; into world units.

    Linear interpolation between grid points leaves steps where the field is steep; halving the edge six times and one
    last interpolation put the vertex within a hundredth of a cell. The ends' values are those of the ``grid``: asked
    again, a point on the very surface may round to the other side.
    """
    spacing = 2 * bound / (len(grid) - 1)
    low = np.floor(vertices + 1e-4).astype(np.int64)
    away = np.abs(vertices - np.round(vertices)) > 1e-4
    free = (away.sum(1) == 1) & (low >= 0).all(1) & (low + away < len(grid)).all(1)
    near, far = low[free], low[free] + away[free]
    fa, fb = grid[tuple(near.T)] - level, grid[tuple(far.T)] - level
    a, b = ((end * spacing - bound).astype(np.float32) for end in (near, far))
    for _ in range(6):
        middle = (a + b) / 2
        fm = value(middle) - level
        left = (fm > 0) == (fa > 0)
        a, fa = np.where(left[:, None], middle, a), np.where(left, fm, fa)
        b, fb = np.where(left[:, None], b, middle), np.where(left, fb, fm)
    world = (vertices * spacing - bound).astype(np.float32)
    world[free] = a + (fa / np.where(fa == fb, 1, fa - fb))[:, None] * (b - a)
    return world


def from_density(geometry: Geometry, bound: float, resolution: int, level: float | None) -> Surface | None:
    """The level set of ``geometry.density``; a level of None is chosen. None (and a warning) where it is empty.

    Fog that never hides half of the light still gives its denser half, with a warning.
    """
    field = sampler(geometry, "density")
    grid = density_grid(field, bound, resolution)
    cell = 2 * bound / (resolution - 1)
    chosen = iso_level(grid, cell)
    if chosen is None:
        log.warning("the surface is empty: the density is zero everywhere in the scene's cube")
        return None
    value = chosen.value if level is None else level
    if chosen.opacity < 0.01 and level is None:
        log.warning("the surface is empty: no view is more than %.2g %% opaque", 100 * chosen.opacity)
        return None
    if chosen.opacity < 0.5:
        log.warning("the object is thin (at most %.0f %% opaque): its densest part is exported", 100 * chosen.opacity)
    # 1 - exp(-sigma ln2 / level) crosses 1/2 at the level and is bounded: no spike pushes the surface outwards.
    rate = np.float32(np.log(2) / value)

    def soft(points: F32) -> F32:
        return 1 - np.exp(-np.minimum(rate * field(points), 80))

    bounded = 1 - np.exp(-np.minimum(rate * grid, 80))
    vertices, faces = triangulate(bounded, 0.5, 0.0, 1.0)
    if len(faces) == 0:
        log.warning("the surface is empty: the density (at most %.3g) stays under %.3g", grid.max(), value)
        return None
    return Surface(_settle(vertices, bounded, soft, 0.5, bound), faces, cell, True, value)


def from_sdf(geometry: Geometry, bound: float, resolution: int) -> Surface | None:
    """The zero set of ``geometry.sdf``, closed at the scene's cube; None (and a warning) if empty."""
    field = sampler(geometry, "sdf")
    index = np.indices((resolution,) * 3).reshape(3, -1).T
    cell = 2 * bound / (resolution - 1)
    grid = -_at(field, index, bound, resolution).reshape((resolution,) * 3)
    vertices, faces = triangulate(grid, 0.0, -cell, cell)
    if len(faces) == 0:
        log.warning("the surface is empty: the signed distance is nowhere negative in the scene's cube")
        return None
    return Surface(_settle(vertices, grid, lambda p: -field(p), 0.0, bound), faces, cell)


def from_mesh(mesh: Mesh) -> Surface | None:
    """A geometry's own mesh; None (and a warning) where it has no faces or vertices that are not finite."""
    vertices = mesh.vertices.detach().float().cpu().numpy()
    faces = mesh.faces.detach().cpu().numpy().astype(np.int64)
    if len(faces) == 0 or not np.isfinite(vertices).all():
        log.warning("the surface is empty: the geometry's mesh has no usable faces")
        return None
    return Surface(vertices, faces, source=mesh)


def extract(geometry: Geometry, bound: float, resolution: int = 128, level: float | None = None) -> Surface | None:
    """The raw surface of any geometry: its own mesh, else its signed distance, else its density.

    Args:
        bound: half the side of the scene's cube.  resolution: grid points along a side, >= 8.
        level: density level in 1 / unit length; None chooses it (see :mod:`core.meshing.level`).

    Returns:
        None where there is no surface; the log says why.
    """
    if overrides(geometry, "mesh"):
        try:
            return from_mesh(geometry.mesh(resolution))
        except NotImplementedError:
            log.debug("%s gives no mesh; its field is used", type(geometry).__name__)
    if overrides(geometry, "sdf"):
        return from_sdf(geometry, bound, resolution)
    return from_density(geometry, bound, resolution, level)
