"""Mesh rasterisation: which face a pixel sees, where on it, and how much of the pixel it covers at silhouettes.

Vertices are handed over as homogeneous pixels ``(x w, y w, w)``: x, y in pixels from the upper left corner (pixel
centres at k + 0.5), w the depth along the viewing axis. :func:`homogeneous` makes them from cameras. Nothing is
divided by w before a pixel asks (Olano and Greer 1997, "Triangle Scan Conversion using 2D Homogeneous Coordinates"),
so a face that crosses the near plane is cut there exactly, pixel by pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch
from core.types import Cameras

__all__ = ["Fragments", "antialias", "homogeneous", "interpolate", "neighbours", "rasterise"]

NEAR = 1e-2


class Fragments(NamedTuple):
    """What :func:`rasterise` gives.

    Attributes:
        face: [B, H, W] int64, the face in front at the pixel's centre, -1 where there is none.
        bary: [B, H, W, 3] perspective-correct weights of its corners, adding up to 1; 0 where there is none.
        depth: [B, H, W] along the viewing axis, 0 where there is none.
    """

    face: Tensor
    bary: Tensor
    depth: Tensor


def homogeneous(cameras: Cameras, points: Tensor) -> Tensor:
    """World points [V, 3] as homogeneous pixels [B, V, 3] of each camera, differentiable; any principal point."""
    pose = cameras.world_to_camera.to(points)
    local = points @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]
    w = -local[..., 2:]
    focal, center = cameras.focal.to(points)[:, None, None], cameras.center.to(points)[:, None]
    flipped = local[..., :2] * local.new_tensor([1.0, -1.0])
    return torch.cat([flipped * focal + center * w, w], -1)


def rasterise(
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3] int64
    height: int,
    width: int,
    near: float = NEAR,
    backend: str | None = None,
) -> Fragments:
    """The nearest face at each pixel's centre, with perspective-correct weights and depth.

    Both sides of a face are seen; of faces at equal depth the first is. Faces with a vertex that is not finite, and
    faces that cover less than 1e-6 square pixels (seen edge-on, or of no area), are not drawn. Gradients of weights
    and depth reach the vertices; which face is seen has none (that is what :func:`antialias` is for).

    Args:
        vertices: [B, V, 3] homogeneous pixels, float32 or float64.
        near: least depth that is seen, > 0; what a face has in front of it is cut off.
        backend: forces one of :func:`core.kernels.dispatch.backends`.

    Raises:
        UserError: shapes that do not fit, a face with no such vertex, or an impossible backend.
    """
    _check(vertices, faces, height, width, near)
    module = dispatch.resolve("mesh_raster", vertices.device.type, backend)
    with torch.no_grad():
        face = module.visible(vertices.detach(), faces, height, width, near)
    bary, depth = module.weights(vertices, faces, face)
    return Fragments(face, bary, depth)


def interpolate(values: Tensor, faces: Tensor, fragments: Fragments, backend: str | None = None) -> Tensor:
    """Values of vertices at pixels, differentiable in the values and (through the weights) in the vertices.

    Args:
        values: [V, C], or [B, V, C] with a set for each picture.
        faces: [F, 3].  fragments: of :func:`rasterise`.

    Returns:
        [B, H, W, C], 0 where no face is seen.
    """
    batch = fragments.face.shape[0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[0] != batch):
        raise UserError(f"interpolate: values must be [V, C] or [{batch}, V, C], not {list(values.shape)}.")
    module = dispatch.resolve("mesh_raster", values.device.type, backend)
    return module.interpolate(values.to(fragments.bary), faces, fragments.face, fragments.bary)


def neighbours(faces: Tensor) -> Tensor:
    """[F, 3] int64: the face across the edge from corner k to corner k + 1; -1 at a border and where three meet."""
    count, device = len(faces), faces.device
    start, end = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)
    key = (torch.minimum(start, end) << 32) + torch.maximum(start, end)  # unique rows take twenty times as long
    _, edge, uses = torch.unique(key, return_inverse=True, return_counts=True)
    owner = torch.arange(count, device=device).repeat_interleave(3)
    total = torch.zeros(len(uses), dtype=torch.int64, device=device).index_add(0, edge, owner)
    across = total[edge] - owner  # two faces at an edge: their sum less one is the other
    lonely = (uses[edge] != 2) | (across == owner)
    return torch.where(lonely, -1, across).view(count, 3)


def antialias(
    pictures: Tensor,  # [B, H, W, C]
    fragments: Fragments,
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3]
    across: Tensor | None = None,  # [F, 3]
    near: float = NEAR,
    backend: str | None = None,
) -> Tensor:
    """Blend neighbouring pixels over silhouettes by how far the edge between them lies: differentiable coverage.

    Analytic antialiasing (Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering",
    section 3.6): where a silhouette edge crosses the line between two pixel centres at a share d from the one that
    sees the nearer face, the far pixel takes d - 1/2 of the near one's value if d > 1/2, and the near pixel takes
    1/2 - d of the far one's otherwise. Upright edges act on horizontal pairs, lying ones on vertical pairs. The edge
    is looked for face by face from the near pixel on, so faces smaller than a pixel have silhouettes too. A pixel
    takes at most its whole value from its neighbours.

    Gradients reach the pictures and, through d, the vertices of the edges; they are the exact derivatives of what is
    computed, which is continuous as an edge moves over a pixel centre.

    Args:
        pictures: [B, H, W, C], already over the background.
        vertices, near: as :func:`rasterise` had them.
        across: :func:`neighbours` of the faces, where they are known.

    Returns:
        [B, H, W, C].
    """
    if pictures.shape[:3] != fragments.face.shape:
        raise UserError(f"antialias: pictures {list(pictures.shape)} do not fit {list(fragments.face.shape)}.")
    if not len(faces):
        return pictures
    from .blending import blend

    module = dispatch.resolve("mesh_raster", vertices.device.type, backend)
    across = neighbours(faces) if across is None else across
    with torch.no_grad():
        depth = fragments.depth.detach()
        edges, front = module.silhouettes(vertices.detach(), faces, across, fragments.face, depth, near)
    return blend(pictures, vertices, edges, front)


def _check(vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> None:
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise UserError(f"rasterise: vertices must be [B, V, 3], not {list(vertices.shape)}.")
    if faces.ndim != 2 or faces.shape[-1] != 3 or faces.dtype != torch.int64:
        raise UserError(f"rasterise: faces must be int64 [F, 3], not {faces.dtype} {list(faces.shape)}.")
    if height < 1 or width < 1 or near <= 0:
        raise UserError(f"rasterise: height ({height}), width ({width}) and near ({near:g}) must be positive.")
    if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= vertices.shape[1]):
        raise UserError(f"rasterise: a face names a vertex that is not there; there are {vertices.shape[1]}.")
