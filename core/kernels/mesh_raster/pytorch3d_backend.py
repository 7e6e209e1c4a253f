"""Visibility by pytorch3d's rasteriser; weights, interpolation and silhouettes are the reference's."""

from __future__ import annotations

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from torch import Tensor

from . import reference
from .reference import interpolate, silhouettes, weights

__all__ = ["interpolate", "silhouettes", "visible", "weights"]


def visible(vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> Tensor:
    """[B, H, W] int64: see :func:`core.kernels.mesh_raster.rasterise`.

    The library takes projected points, so what crosses the near plane (and what is no float32 or empty) goes to the
    reference, which needs no projection.
    """
    if vertices.dtype != torch.float32 or not len(faces) or not bool((vertices[..., 2] >= near).all()):
        return reference.visible(vertices, faces, height, width, near)
    kept = torch.stack([reference.drawable(v[faces]) for v in vertices])
    if not bool(kept.all()):
        return reference.visible(vertices, faces, height, width, near)
    short = min(height, width)
    size = vertices.new_tensor([width, height])
    # Its screen: the shorter side spans [-1, 1], x to the left, y upwards.
    ndc = (size - 2 * vertices[..., :2] / vertices[..., 2:]) / short
    batch = vertices.shape[0]
    meshes = Meshes(torch.cat([ndc, vertices[..., 2:]], -1), faces.expand(batch, -1, -1))
    found = rasterize_meshes(
        meshes, (height, width), blur_radius=0.0, faces_per_pixel=1, perspective_correct=True, cull_backfaces=False
    )[0][..., 0]
    offset = torch.arange(batch, device=found.device)[:, None, None] * len(faces)
    return torch.where(found >= 0, found - offset, found)
