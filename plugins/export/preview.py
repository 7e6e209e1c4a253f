"""What a mesh viewer shows: a z-buffer rasteriser with textures and smooth normals, and a picture made with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from pydantic import Field

from core.contracts import Exporter, Scene
from core.meshing.raster import F32, bilinear, blend, rasterise
from core.types import Cameras, Mesh, Render
from plugins.export.assets import TexturedConfig, destination, skipped, textured_mesh, z_up
from plugins.export.sheet import contact_sheet
from plugins.export.views import shrink

_PLAIN = 0.78


def load_glb(path: Path) -> Mesh:
    """A GLB with one textured mesh, back in the project's axes.

    Raises:
        ValueError: no mesh with UVs and a base colour texture in it.
    """
    body: Any = trimesh.load(path, force="mesh", process=False)
    visual = body.visual
    image = getattr(getattr(visual, "material", None), "baseColorTexture", None)
    if image is None or visual.uv is None:
        raise ValueError(f"{path.name} holds no textured mesh")
    texture = np.asarray(image.convert("RGB"), np.float32) / 255
    arrays = (z_up(body.vertices), np.asarray(body.faces, np.int64), z_up(body.vertex_normals), visual.uv)
    vertices, faces, normals, uv = (torch.from_numpy(np.array(a)) for a in arrays)
    return Mesh(vertices, faces, normals=normals, uv=uv.float(), texture=torch.from_numpy(texture))


def render_mesh(mesh: Mesh, cameras: Cameras, shaded: bool = False, textured: bool = True) -> Render:
    """Pictures of a mesh over white, one sample per pixel.

    Args:
        mesh: with normals, and with UVs and a texture where ``textured``.
        shaded: light it from the camera's upper left; otherwise the colours are shown as they are.

    Returns:
        rgb, opacity (0 or 1), depth and world-space normals.
    """
    pictures = [_one(mesh, cameras[k : k + 1], shaded, textured) for k in range(len(cameras))]
    rgb, opacity, depth, normal = (torch.from_numpy(np.stack(part)) for part in zip(*pictures, strict=True))
    return Render(rgb, opacity, cameras, depth, normal)


def _project(vertices: F32, camera: Cameras) -> tuple[F32, F32]:
    """Pixels [V, 2] and inverse depths [V] (0 for what is behind the camera)."""
    pose = camera.c2w[0].double().cpu().numpy()
    local = (vertices - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    near = np.where(depth > 1e-3, 1 / np.maximum(depth, 1e-3), 0)
    focal = camera.height / 2 / np.tan(float(camera.fov_y[0]) / 2)
    x = camera.width / 2 + focal * local[:, 0] * near
    y = camera.height / 2 - focal * local[:, 1] * near
    return np.stack([x, y], 1), near


def _one(mesh: Mesh, camera: Cameras, shaded: bool, textured: bool) -> tuple[F32, F32, F32, F32]:
    vertices, faces = mesh.vertices.float().cpu().numpy(), mesh.faces.cpu().numpy()
    xy, near = _project(vertices, camera)
    face, bary, inverse = rasterise(xy, faces, camera.height, camera.width, near)
    hit = face >= 0
    normal = np.zeros((*hit.shape, 3), np.float32)
    colour = np.full((int(hit.sum()), 3), _PLAIN, np.float32)
    if mesh.normals is not None:
        bent = blend(mesh.normals.float().cpu().numpy(), faces, face[hit], bary[hit])
        normal[hit] = bent / np.maximum(np.linalg.norm(bent, axis=1, keepdims=True), 1e-9)
    if textured and mesh.uv is not None and mesh.texture is not None:
        uv = blend(mesh.uv.float().cpu().numpy(), faces, face[hit], bary[hit])
        colour = bilinear(mesh.texture.float().cpu().numpy(), uv)
    if shaded:
        pose = camera.c2w[0].float().cpu().numpy()
        light = pose[:3, 2] * 0.75 + pose[:3, 1] * 0.55 - pose[:3, 0] * 0.35
        facing = np.clip(normal[hit] @ (light / np.linalg.norm(light)), 0, 1)[:, None]
        colour = colour * (0.38 + 0.62 * facing)
    rgb = np.ones((*hit.shape, 3), np.float32)
    rgb[hit] = colour
    depth = np.where(hit, 1 / np.where(hit, inverse, 1), 0)[..., None].astype(np.float32)
    return rgb, hit[..., None].astype(np.float32), depth, normal


class PreviewExporter(Exporter):
    """Writes ``<name>-preview.png``: the mesh of the GLB, with its texture, then plain and lit."""

    class Config(TexturedConfig):
        size: int = Field(256, ge=16, le=2048)
        """Side of one picture in pixels."""
        columns: int = Field(4, ge=1, le=24)
        """Azimuths, evenly spread; the first is the front."""
        elevation: float = Field(15.0, ge=-90, le=90)
        """Degrees above the horizon."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        common = TexturedConfig(**{k: getattr(self.options, k) for k in TexturedConfig.model_fields})
        mesh = textured_mesh(scene, common)
        if mesh is None:
            skipped(scene, "-preview.png")
            return
        azimuths = torch.arange(self.options.columns) * (360 / self.options.columns)
        cameras = around(mesh, azimuths, self.options.elevation, self.options.size * 3)
        rows = {
            "texture": shrink(render_mesh(mesh, cameras).rgb.numpy(), self.options.size),
            "lit": shrink(render_mesh(mesh, cameras, shaded=True).rgb.numpy(), self.options.size),
            "plain": shrink(render_mesh(mesh, cameras, shaded=True, textured=False).rgb.numpy(), self.options.size),
        }
        path = destination(scene, folder, "-preview.png")
        contact_sheet(rows, [f"{a:g}°" for a in azimuths.tolist()], scene.prompt).save(path)
        yield path


def around(mesh: Mesh, azimuths: torch.Tensor, elevation: float, size: int) -> Cameras:
    """Square views from ``azimuths`` [B] and ``elevation``, degrees, that hold the whole mesh."""
    low, high = mesh.vertices.min(0).values, mesh.vertices.max(0).values
    center = (low + high) / 2
    radius = float((mesh.vertices - center).norm(dim=1).max())
    fov = np.radians(40.0)
    azimuth = torch.deg2rad(azimuths.float())
    same = torch.ones_like(azimuth)
    distance = 1.04 * max(radius, 1e-3) / np.sin(fov / 2)
    return Cameras.orbit(azimuth, same * np.radians(elevation), same * distance, same * fov, size, size, center.float())
