"""Colours of a surface, per vertex or baked into an atlas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from core.contracts import Material, Scene
from core.meshing.raster import blend, rasterise
from core.meshing.surface import Field, Surface, overrides, sampler
from core.meshing.unwrap import Unwrapped

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
Paint = Callable[..., F32]
"""Colours [N, 3], sRGB in [0, 1], at points [N, 3] with unit normals [N, 3] and, where the surface has its own, UVs
[N, 2] (else None)."""

_CHUNK = 1 << 17
_GREY = 0.7
_BLOCK = 4
_OUTSIDE, _INSIDE, _STEPS = 1.5, 3.0, 14


def painter(scene: Scene, surface: Surface) -> Paint:
    """How to colour this surface: its geometry's features through the material, else the mesh's colours, else grey."""
    if overrides(scene.geometry, "field", "features"):
        return lambda points, normals, uv=None: _field_colours(scene, points, normals, uv)
    source = surface.source
    if source is None or source.colors is None:
        return lambda points, normals, uv=None: np.full((len(points), 3), _GREY, np.float32)
    tree = cKDTree(source.vertices.detach().cpu().numpy())
    colours = source.colors.detach().float().cpu().numpy()
    return lambda points, normals, uv=None: colours[tree.query(points)[1]].astype(np.float32)


def _field_colours(scene: Scene, points: F32, normals: F32, uv: F32 | None = None) -> F32:
    """The material's colours: those of its surface where it tells them from their light, else as seen from straight
    above each point."""

    def colour(features: Tensor, at: Tensor, normal: Tensor) -> Tensor:
        maps = scene.material.maps(features)
        return maps["base_color"] if maps else scene.material(features, at, -normal, normal)

    return np.clip(np.nan_to_num(_asked(scene, colour, 3, points, normals, uv), nan=_GREY), 0, 1)


def roughness_metallic(scene: Scene) -> Paint | None:
    """Roughness and metallic [N, 2] of a material that has them, to be baked like colours; else None."""
    if not overrides_maps(scene) or not overrides(scene.geometry, "field", "features"):
        return None

    def both(features: Tensor, at: Tensor, normal: Tensor) -> Tensor:
        maps = scene.material.maps(features)
        return torch.cat([maps["roughness"], maps["metallic"]], -1)

    return lambda points, normals, uv=None: np.clip(_asked(scene, both, 2, points, normals, uv), 0, 1)


def overrides_maps(scene: Scene) -> bool:
    """Whether the material tells its surface from its light."""
    return type(scene.material).maps is not Material.maps


def _asked(
    scene: Scene, what: Callable[..., Tensor], channels: int, points: F32, normals: F32, uv: F32 | None
) -> F32:
    """[N, channels] of ``what(features, points, normals)``, in chunks."""
    device, bound = scene.geometry.context.device, scene.geometry.context.bound
    found = np.empty((len(points), channels), np.float32)
    with torch.no_grad():
        for start in range(0, len(points), _CHUNK):
            part = slice(start, start + _CHUNK)
            at = torch.from_numpy(np.ascontiguousarray(points[part])).to(device).clamp(-bound, bound)
            normal = torch.from_numpy(np.ascontiguousarray(normals[part])).to(device)
            place = None if uv is None else torch.from_numpy(np.ascontiguousarray(uv[part])).to(device)
            found[part] = what(scene.geometry.features(at, place), at, normal).float().cpu().numpy()
    return found


def seek(density: Field, points: F32, normals: F32, cell: float) -> F32:
    """[N] how far along the normal the volume's own surface lies, world units, negative inside.

    The ray comes in along ``-normal`` from 1.5 cells outside to 3 cells inside and stops where half of the light
    is gone, or half of what will go where the wall is thinner than that. A mesh cuts corners where it was
    decimated and a density's colour means nothing where there is no density, so this is where the colour is asked.
    """
    start, step = _OUTSIDE * cell, (_OUTSIDE + _INSIDE) * cell / _STEPS
    along = (start - step * (np.arange(_STEPS) + 0.5)).astype(np.float32)
    places = points[:, None] + normals[:, None] * along[None, :, None]
    sigma = np.maximum(density(places.reshape(-1, 3)), 0).reshape(-1, _STEPS)
    depth = np.cumsum(sigma.astype(np.float64) * step, 1)
    target = np.minimum(math.log(2), depth[:, -1] / 2)
    stop = (depth < target[:, None]).sum(1).clip(max=_STEPS - 1)
    row = np.arange(len(points))
    within = depth[row, stop] - target
    share = 1 - within / np.maximum(sigma[row, stop] * step, 1e-12)
    offset = start - step * (stop + np.clip(share, 0, 1))
    return np.where(depth[:, -1] > 1e-6, offset, 0).astype(np.float32)


def vertex_colours(paint: Paint, density: Field | None, surface: Surface, vertices: F32, normals: F32) -> F32:
    """[V, 3] colours of the vertices, sRGB in [0, 1]."""
    if density is not None:
        vertices = vertices + normals * seek(density, vertices, normals, surface.cell)[:, None]
    return paint(vertices.astype(np.float32), normals)


def density_of(scene: Scene, surface: Surface) -> Field | None:
    """The density to look for the colour's place in, or None where the surface is exact."""
    return sampler(scene.geometry, "density") if surface.soft else None


def bake(
    paint: Paint, density: Field | None, surface: Surface, mesh: Unwrapped, size: int, own: bool = False
) -> F32:
    """The atlas [size, size, C] of what ``paint`` gives (colours: sRGB in [0, 1]), row 0 at v = 1; the gaps repeat the
    nearest chart's texel.

    ``own`` says that the UVs are the geometry's, which may then look its features up by them.

    The repeated colours are the seam padding: neither bilinear sampling nor the smaller mip levels can pick up
    a background, because there is none.
    """
    xy = np.stack([mesh.uv[:, 0] * size, (1 - mesh.uv[:, 1]) * size], 1).astype(np.float32)
    face, bary, _ = rasterise(xy, mesh.faces, size, size)
    covered = face >= 0
    if not covered.any():
        return np.full((size, size, 3), _GREY, np.float32)
    points = blend(mesh.vertices, mesh.faces, face[covered], bary[covered])
    normals = _unit(blend(mesh.normals, mesh.faces, face[covered], bary[covered]))
    if density is not None:
        points = points + normals * _offsets(density, surface.cell, mesh, face, bary)[covered][:, None]
    row, col = np.nonzero(covered)
    uv = np.stack([(col + 0.5) / size, 1 - (row + 0.5) / size], 1).astype(np.float32) if own else None
    painted = paint(points.astype(np.float32), normals, uv)
    texture = np.zeros((size, size, painted.shape[1]), np.float32)
    texture[covered] = painted
    return fill(texture, covered)


def fill(values: F32, known: NDArray[np.bool_]) -> F32:
    """``values`` [H, W, ...] with every unknown place taken from the nearest ``known`` [H, W] one."""
    index = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return values[index[0], index[1]]


def _unit(vectors: F32) -> F32:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _offsets(density: Field, cell: float, mesh: Unwrapped, face: I32, bary: F32) -> F32:
    """[T, T] result of :func:`seek`, asked once in every block of 4 by 4 texels and interpolated between."""
    size = face.shape[0]
    blocks = -(-size // _BLOCK)
    index = np.pad(np.arange(size * size).reshape(size, size), (0, blocks * _BLOCK - size), mode="edge")
    tiles = index.reshape(blocks, _BLOCK, blocks, _BLOCK).transpose(0, 2, 1, 3).reshape(blocks, blocks, -1)
    middle = (np.arange(_BLOCK) - (_BLOCK - 1) / 2) ** 2
    tiles = tiles[..., np.argsort((middle[:, None] + middle).reshape(-1), kind="stable")]
    flat = face.reshape(-1)[tiles] >= 0
    known = flat.any(-1)
    chosen = np.take_along_axis(tiles, flat.argmax(-1)[..., None], -1)[..., 0][known]
    faces, weights = face.reshape(-1)[chosen], bary.reshape(-1, 3)[chosen]
    points = blend(mesh.vertices, mesh.faces, faces, weights)
    normals = _unit(blend(mesh.normals, mesh.faces, faces, weights))
    coarse = np.zeros((blocks, blocks), np.float32)
    coarse[known] = seek(density, points, normals, cell)
    fine = ndimage.zoom(fill(coarse, known), _BLOCK, order=1, grid_mode=True, mode="nearest")
    return np.asarray(fine[:size, :size], np.float32)
