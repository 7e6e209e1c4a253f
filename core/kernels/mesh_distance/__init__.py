"""Closest points of a triangle mesh and winding numbers round it: what signed distances are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch

__all__ = ["closest_face", "winding_number"]


@torch.no_grad()
def closest_face(
    points: Tensor,  # [N, 3]
    vertices: Tensor,  # [V, 3]
    faces: Tensor,  # [F, 3] int64
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The face nearest to each point, and where on it the nearest point lies.

    Args:
        points: [N, 3] finite; float32 or float64, in which the answer comes too.
        vertices, faces: a mesh with at least one face; degenerate faces count as the segment or point that they are.
        backend: forces one of :func:`core.kernels.dispatch.backends`.

    Returns:
        [N] int64 indices of faces and [N, 3] barycentric coordinates in [0, 1], which sum to 1. Where several faces are
        equally near, any of them. Not differentiable; the nearest point ``sum_k b_k v_k`` is, with b held (the envelope
        theorem).

    Raises:
        UserError: no faces, indices out of range, numbers that are not finite, or an impossible backend.
    """
    points, vertices, faces = _checked(points, vertices, faces)
    module = dispatch.resolve("mesh_distance", points.device.type, backend)
    return module.closest_face(points, vertices, faces)  # type: ignore[no-any-return]


@torch.no_grad()
def winding_number(
    points: Tensor,  # [N, 3]
    vertices: Tensor,  # [V, 3]
    faces: Tensor,  # [F, 3] int64
    backend: str | None = None,
) -> Tensor:
    """[N] how often the mesh winds round each point: 1 inside a closed outward mesh, 0 outside (Jacobson et al. 2013).

    Between the two where the mesh has holes; above 1/2 counts as inside. A point on the surface may have any value. The
    ``numba`` backend adds up far groups of faces as dipoles (Barill et al. 2018, first order), to within 0.04; the
    reference is exact. Not differentiable.

    Raises:
        UserError: as :func:`closest_face`.
    """
    points, vertices, faces = _checked(points, vertices, faces)
    module = dispatch.resolve("mesh_distance", points.device.type, backend)
    return module.winding_number(points, vertices, faces)  # type: ignore[no-any-return]


def _checked(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    for name, value in (("points", points), ("vertices", vertices), ("faces", faces)):
        if value.ndim != 2 or value.shape[1] != 3:
            raise UserError(f"mesh_distance: {name} must be [N, 3], not {list(value.shape)}.")
    if len(faces) == 0:
        raise UserError("mesh_distance: the mesh has no faces, so nothing is near it or inside it.")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise UserError(f"mesh_distance: faces name vertices that are not there; the mesh has {len(vertices)}.")
    if not bool(torch.isfinite(vertices).all()) or not bool(torch.isfinite(points).all()):
        raise UserError("mesh_distance: points and vertices must be finite; some are NaN or infinite.")
    dtype = torch.promote_types(torch.promote_types(points.dtype, vertices.dtype), torch.float32)
    return points.detach().to(dtype), vertices.detach().to(dtype), faces.detach()
