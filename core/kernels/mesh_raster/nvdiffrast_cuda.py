"""Visibility by nvdiffrast, only when asked for: its licence forbids commercial use.

Weights, interpolation and silhouettes are the reference's, so that results do not depend on the backend.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import nvdiffrast.torch as dr
import torch
from torch import Tensor

from . import reference
from .reference import interpolate, silhouettes, weights

__all__ = ["interpolate", "silhouettes", "visible", "weights"]


def visible(vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> Tensor:
    """[B, H, W] int64: see :func:`core.kernels.mesh_raster.rasterise`."""
    if vertices.dtype != torch.float32 or not len(faces) or not bool(vertices.isfinite().all()):
        return reference.visible(vertices, faces, height, width, near)
    x, y, w = vertices.unbind(-1)
    # Depth order with the far plane at infinity: (w - 2 near) / w is -1 at the near plane and rises towards 1.
    clip = torch.stack([2 * x / width - w, 2 * y / height - w, w - 2 * near, w], -1).contiguous()
    found, _ = dr.rasterize(_context(vertices.device.index or 0), clip, faces.int().contiguous(), (height, width))
    return found[..., 3].long() - 1


@cache
def _context(device: int) -> Any:
    return dr.RasterizeCudaContext(device=f"cuda:{device}")
