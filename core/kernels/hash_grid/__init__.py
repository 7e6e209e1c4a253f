"""Multiresolution hash encoding: where a point is, as numbers that a small network can learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch

from .spec import HashGridSpec, is_dense

__all__ = ["HashGridSpec", "hash_grid"]


def hash_grid(
    points: Tensor,  # [N, 3] in [0, 1]
    table: Tensor,  # [L, T, F]
    resolutions: Sequence[int] | Tensor,  # L cells per side
    backend: str | None = None,
) -> Tensor:
    """Encode points by trilinear interpolation in L hashed grids (Müller et al. 2022, section 3, eq. 2-4).

    Args:
        points: [N, 3]; coordinates outside [0, 1] are clamped (no gradient comes back through those), NaN gives NaN.
        table: [L, T, F] float32 or float64. A level with (resolution + 1)^3 <= T is indexed densely, x fastest;
            the others by the xor-prime hash, for which T must be a power of two.
        resolutions: L cells per side; level l has (r + 1)^3 vertices at multiples of 1 / r.
        backend: forces one of :func:`core.kernels.dispatch.backends`.

    Returns:
        [N, L * F], level by level, in the wider of the two float types (float32 at least). Differentiable in points
        and table; gradients of gradients too (normals, eikonal terms), to second order on ``numba``.

    Raises:
        UserError: shapes that do not fit, T not a power of two, or an impossible backend.
    """
    levels = _resolutions(resolutions)
    _check(points, table, levels)
    dtype = torch.promote_types(torch.promote_types(points.dtype, table.dtype), torch.float32)
    module = dispatch.resolve("hash_grid", table.device.type, backend)
    return module.encode(points.to(dtype), table.to(dtype), levels)


def _resolutions(resolutions: Sequence[int] | Tensor) -> tuple[int, ...]:
    if isinstance(resolutions, tuple):
        return resolutions
    return tuple(int(r) for r in (resolutions.tolist() if isinstance(resolutions, Tensor) else resolutions))


def _check(points: Tensor, table: Tensor, levels: tuple[int, ...]) -> None:
    if points.ndim != 2 or points.shape[1] != 3:
        raise UserError(f"hash_grid: points must be [N, 3], not {list(points.shape)}.")
    if table.ndim != 3 or table.shape[0] != len(levels):
        raise UserError(
            f"hash_grid: the table must be [L, T, F] with L = {len(levels)} resolutions, not {list(table.shape)}."
        )
    rows = table.shape[1]
    if rows & (rows - 1) and not all(is_dense(r, rows) for r in levels):
        raise UserError(f"hash_grid: the table has {rows} rows; hashed levels need a power of two.")
    if points.device != table.device:
        raise UserError(f"hash_grid: the points are on {points.device}, the table on {table.device}.")
