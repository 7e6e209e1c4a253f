"""The meshes that exporters write, made once per scene and set of options."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from core.config.base import Config
from core.contracts import Scene
from core.meshing import cleanup, texture
from core.meshing.surface import F32, Surface, extract
from core.meshing.unwrap import Unwrapped, unwrap
from core.types import Mesh

log = logging.getLogger("maquette")
T = TypeVar("T")


class SurfaceConfig(Config):
    """How the surface is found. Exporters with equal options share one."""

    resolution: int = Field(128, ge=8, le=1024)
    """Grid points along a side of the scene's cube."""
    level: float | None = Field(None, gt=0)
    """Density at the surface, per unit length; null finds the one that looks most like the volume."""
    smooth: int = Field(4, ge=0, le=100)
    """Rounds of smoothing without shrinking."""
    smallest_part: float = Field(0.02, ge=0, le=1)
    """Loose parts with a smaller share of the largest part's area are dropped."""


class TexturedConfig(SurfaceConfig):
    """A surface with an atlas."""

    faces: int = Field(10_000, ge=100)
    """At most about this many triangles; unwrapping takes seconds beyond 20 000."""
    texture: int = Field(1024, ge=64, le=8192)
    """Side of the atlas in pixels."""
    padding: int = Field(4, ge=1, le=64)
    """Pixels between charts."""
    crease: float = Field(45.0, ge=0, le=180)
    """Edges turned by more degrees than this look sharp, others smooth."""


def once(scene: Scene, key: Hashable, make: Callable[[], T]) -> T:
    """``make()`` the first time, the same object afterwards."""
    cache: dict[Any, Any] = scene.cache
    if key not in cache:
        cache[key] = make()
    return cache[key]  # type: ignore[no-any-return]


def dense_surface(scene: Scene, options: SurfaceConfig) -> Surface | None:
    """The cleaned surface at the grid's own resolution; None (and one warning) where there is none."""
    chosen = (options.resolution, options.level, options.smooth, options.smallest_part)
    return once(scene, ("export.surface", *chosen), lambda: _dense(scene, options))


def _dense(scene: Scene, options: SurfaceConfig) -> Surface | None:
    surface = extract(scene.geometry, scene.geometry.context.bound, options.resolution, options.level)
    if surface is None or _own_uv(surface.source):
        return surface
    vertices, faces = cleanup.compact(surface.vertices, surface.faces)
    if len(faces) == 0:
        log.warning("the surface is empty: all of its faces are degenerate")
        return None
    vertices, faces = cleanup.largest_parts(vertices, faces, options.smallest_part)
    if surface.source is None:
        vertices = cleanup.taubin(vertices, faces, options.smooth)
    surface.vertices, surface.faces = vertices, cleanup.outwards(vertices, faces)
    return surface


def _own_uv(mesh: Mesh | None) -> bool:
    """Whether a mesh came with UVs that an atlas can use: nothing is cut off, smoothed or unwrapped anew then."""
    if mesh is None or mesh.uv is None:
        return False
    if mesh.texture is None and not bool(((mesh.uv >= -1e-4) & (mesh.uv <= 1 + 1e-4)).all()):
        log.warning("the mesh's UVs repeat its texture, which cannot hold what was learned: it is unwrapped anew")
        return False
    return True


def textured_mesh(scene: Scene, options: TexturedConfig) -> Mesh | None:
    """The mesh with normals, UVs and a texture; None where the surface is empty (already told in the log).

    A geometry that gives a mesh with UVs of its own keeps them, and its texture where it has one.
    """
    return once(scene, ("export.textured", repr(options.model_dump())), lambda: _textured(scene, options))


def _textured(scene: Scene, options: TexturedConfig) -> Mesh | None:
    surface = dense_surface(scene, options)
    if surface is None:
        return None
    own = surface.source is not None and _own_uv(surface.source)
    if own and surface.source is not None:
        if surface.source.texture is not None:
            return _with_normals(surface.source)
        flat = Unwrapped(*surface_arrays(_with_normals(surface.source)), surface.faces)
    else:
        vertices, faces = cleanup.decimate(surface.vertices, surface.faces, options.faces)
        flat = unwrap(vertices, faces, options.texture, options.padding, options.crease)
    paint, density = texture.painter(scene, surface), texture.density_of(scene, surface)
    mesh = _as_mesh(flat, texture.bake(paint, density, surface, flat, options.texture, own))
    further = texture.roughness_metallic(scene)
    if further is not None:
        baked = texture.bake(further, density, surface, flat, options.texture, own)
        mesh.roughness_metallic = torch.from_numpy(baked)
    return mesh


def _as_mesh(flat: Unwrapped, image: F32) -> Mesh:
    vertices, faces = torch.from_numpy(flat.vertices.copy()), torch.from_numpy(flat.faces.copy())
    normals, uv = torch.from_numpy(flat.normals.copy()), torch.from_numpy(flat.uv.copy())
    return Mesh(vertices, faces, normals=normals, uv=uv, texture=torch.from_numpy(image))


def _with_normals(mesh: Mesh) -> Mesh:
    if mesh.normals is not None:
        return mesh
    vertices = mesh.vertices.detach().float().cpu().numpy()
    normals = cleanup.vertex_normals(vertices, mesh.faces.cpu().numpy())
    return Mesh(mesh.vertices, mesh.faces, mesh.colors, torch.from_numpy(normals), mesh.uv, mesh.texture)


def coloured_mesh(scene: Scene, options: SurfaceConfig, faces: int) -> Mesh | None:
    """The dense mesh with a normal and a colour per vertex, about ``faces`` triangles; None if empty."""
    surface = dense_surface(scene, options)
    if surface is None:
        return None
    vertices, triangles = cleanup.decimate(surface.vertices, surface.faces, faces)
    normals = cleanup.vertex_normals(vertices, triangles)
    density = texture.density_of(scene, surface)
    colours = texture.vertex_colours(texture.painter(scene, surface), density, surface, vertices, normals)
    tensors = (torch.from_numpy(np.ascontiguousarray(a)) for a in (vertices, triangles, colours, normals))
    return Mesh(*tensors)


def y_up(vectors: F32) -> F32:
    """World axes (z up, front +x) to those of glTF (y up, front +z): a turn, (x, y, z) to (y, z, x)."""
    return np.ascontiguousarray(vectors[:, [1, 2, 0]], np.float32)


def z_up(vectors: F32) -> F32:
    """The inverse of :func:`y_up`."""
    return np.ascontiguousarray(vectors[:, [2, 0, 1]], np.float32)


def surface_arrays(mesh: Mesh) -> tuple[F32, F32, F32]:
    """Vertices [V, 3], normals [V, 3] and UVs [V, 2] of a textured mesh.

    Raises:
        ValueError: it has no normals or no UVs.
    """
    if mesh.normals is None or mesh.uv is None:
        raise ValueError("the mesh has no normals or no UVs")
    vertices, normals, uv = (a.detach().float().cpu().numpy() for a in (mesh.vertices, mesh.normals, mesh.uv))
    return vertices, normals, uv


def texture_image(mesh: Mesh) -> Image.Image:
    """The atlas as an 8-bit sRGB picture, row 0 on top.

    Raises:
        ValueError: the mesh has no texture.
    """
    if mesh.texture is None:
        raise ValueError("the mesh has no texture")
    return Image.fromarray(to_bytes(mesh.texture.detach().float().cpu().numpy()))


def surface_image(mesh: Mesh) -> Image.Image | None:
    """glTF's picture of a surface: roughness in green, metallic in blue; None where the mesh says neither."""
    if mesh.roughness_metallic is None:
        return None
    both = mesh.roughness_metallic.detach().float().cpu().numpy()
    return Image.fromarray(to_bytes(np.concatenate([np.ones_like(both[..., :1]), both], -1)))


def to_bytes(colours: F32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[0, 1] to 0..255, rounded."""
    return (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)


def destination(scene: Scene, folder: Path, suffix: str) -> Path:
    """``folder/<name><suffix>``; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{scene.name}{suffix}"


def skipped(scene: Scene, suffix: str) -> None:
    """Say that a mesh file was not written."""
    log.warning("%s%s was not written: there is no surface to export", scene.name, suffix)
