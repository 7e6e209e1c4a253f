"""Meshes from users' files, with everything that may be wrong with them said in one sentence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import trimesh
from torch import Tensor

from core.errors import UserError
from core.kernels.mesh_raster import neighbours
from core.meshing.normals import face_vectors
from core.types import Mesh

log = logging.getLogger("maquette")

Y_UP = (".glb", ".gltf", ".obj")


def read_mesh(path: str, option: str, up: Literal["auto", "y", "z"] = "auto") -> Mesh:
    """The triangles of a file in world axes, with its UVs, texture and colours where it has any.

    Several objects are merged (their UVs, which would overlap, are dropped); faces without area are dropped; a closed
    surface that is turned inside out is turned over. Each of these is logged as a warning.

    Args:
        option: the job's key, for messages.
        up: ``auto`` takes GLB, GLTF and OBJ to have y up and the front on +z, others to have z up and the front on +x.

    Raises:
        UserError: no such file, no mesh, no faces, or vertices that are not finite.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise UserError(f"{option}: there is no file {path}")
    try:
        parts = _objects(trimesh.load(source, process=False))
    except Exception as error:  # whatever a reader of some format raises on a broken file
        raise UserError(f"{option}: {path} cannot be read as a mesh: {' '.join(str(error).split())}") from error
    parts = [p for p in parts if len(p.faces)]
    if not parts:
        raise UserError(f"{option}: {path} has no faces, so there is no surface to work on")
    if len(parts) > 1:
        log.warning("%s holds %d objects; they are merged into one", path, len(parts))
    mesh = _merged(parts)
    if up == "y" or (up == "auto" and source.suffix.lower() in Y_UP):
        mesh.vertices = mesh.vertices[:, [2, 0, 1]]
    wrong = int((~torch.isfinite(mesh.vertices)).any(1).sum())
    if wrong:
        raise UserError(f"{option}: {path} has {wrong} vertices that are not finite; repair the mesh first")
    return _sound(mesh, path, option)


def _objects(loaded: Any) -> list[Any]:
    """The meshes of a file, where its scene puts them."""
    found = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
    return [part for part in found if isinstance(part, trimesh.Trimesh)]


def _merged(parts: list[Any]) -> Mesh:
    start = np.cumsum([0, *(len(p.vertices) for p in parts)])
    vertices = np.concatenate([np.asarray(p.vertices, np.float64) for p in parts])
    faces = np.concatenate([np.asarray(p.faces, np.int64) + s for p, s in zip(parts, start, strict=False)])
    mesh = Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces))
    if len(parts) > 1:
        return mesh
    visual = parts[0].visual
    uv, material = getattr(visual, "uv", None), getattr(visual, "material", None)
    if uv is not None and len(uv) == len(vertices) and np.isfinite(uv).all():
        mesh.uv = torch.from_numpy(np.asarray(uv, np.float32))
        picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if picture is not None:
            mesh.texture = torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)
    if getattr(visual, "kind", None) == "vertex":
        mesh.colors = torch.from_numpy(np.asarray(visual.vertex_colors)[:, :3].astype(np.float32) / 255)
    return mesh


def _sound(mesh: Mesh, path: str, option: str) -> Mesh:
    area = face_vectors(mesh.vertices.double(), mesh.faces).norm(dim=-1)
    extent = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
    kept = area > 1e-14 * extent**2
    if not bool(kept.any()):
        raise UserError(f"{option}: all {len(kept)} faces of {path} have no area, so there is no surface to work on")
    if not bool(kept.all()):
        log.warning("%s has %d faces without area; they are dropped", path, int((~kept).sum()))
        mesh.faces = mesh.faces[kept]
    if inside_out(mesh.vertices, mesh.faces):
        log.warning("%s is turned inside out; its faces are turned over", path)
        mesh.faces = mesh.faces.flip(1).contiguous()
    return mesh


def inside_out(vertices: Tensor, faces: Tensor) -> bool:
    """Whether a closed surface encloses a negative volume; vertices in one place count as one."""
    _, place = torch.unique(vertices, dim=0, return_inverse=True)
    if bool((neighbours(place[faces]) < 0).any()):
        return False
    points = vertices.double()
    return float((points[faces[:, 0]] * face_vectors(points, faces)).sum()) < 0


def centred(mesh: Mesh, radius: float) -> Mesh:
    """The mesh, moved and scaled until its box is round the origin and its farthest used vertex ``radius`` from it."""
    used = mesh.vertices[mesh.faces.unique()]
    middle = (used.amin(0) + used.amax(0)) / 2
    scale = radius / (used - middle).norm(dim=-1).max().clamp(min=1e-9)
    mesh.vertices = (mesh.vertices - middle) * scale
    return mesh
