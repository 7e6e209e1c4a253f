"""Autograd around the compiled hash encoding: first derivatives and theirs, for normals and eikonal losses."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from core.kernels.numba_tools import array, run

from . import numba_kernels as kernels

Resolutions = tuple[int, ...]


def encode(points: Tensor, table: Tensor, resolutions: Resolutions) -> Tensor:
    """Hash-encode points: see :func:`core.kernels.hash_grid.hash_grid` for the contract."""
    return _Encode.apply(points, table, resolutions)


def _layout(points: Tensor) -> np.ndarray:
    """[N, 3] -> [3, N] contiguous."""
    return array(points.detach().t())


@lru_cache(maxsize=64)
def _constants(resolutions: Resolutions, features: int, dtype: torch.dtype) -> tuple[Any, Any, tuple[int, ...]]:
    real = np.float64 if dtype == torch.float64 else np.float32
    return np.array(resolutions, np.float64), real(1), (0,) * features


def _order(levels: int) -> np.ndarray:
    """Levels dealt round the threads: each thread's share runs from coarse to fine."""
    threads = numba.get_num_threads()
    return np.array([level for t in range(threads) for level in range(t, levels, threads)], np.int64)


def _gather(points: Tensor, table: Tensor, resolutions: Resolutions, v: Tensor | None = None) -> Tensor:
    """Features [N, L * F] or, with v [N, 3], their change along v."""
    res, one, lanes = _constants(resolutions, table.shape[2], points.dtype)
    out = points.new_empty(points.shape[0], table.shape[0] * table.shape[2])
    p = _layout(points)
    run(kernels.encode, p, p if v is None else _layout(v), v is not None, array(table), res, one, lanes, out.numpy())
    return out


def _scatter(points: Tensor, gout: Tensor, shape: torch.Size, resolutions: Resolutions, v: Tensor | None) -> Tensor:
    """The transpose of :func:`_gather` in the table: [L, T, F]."""
    res, one, lanes = _constants(resolutions, shape[2], points.dtype)
    grad = points.new_empty(shape)
    p, order = _layout(points), _order(shape[0])
    direction = p if v is None else _layout(v)
    run(kernels.scatter, p, direction, v is not None, array(gout), res, order, one, lanes, grad.numpy())
    return grad


def _point(points: Tensor, table: Tensor, gout: Tensor, resolutions: Resolutions, v: Tensor | None = None) -> Tensor:
    """Gradient of <features, gout> in the points [N, 3] or, with v, that gradient's change along v."""
    res, one, lanes = _constants(resolutions, table.shape[2], points.dtype)
    grad = points.new_empty(3, points.shape[0])
    p = _layout(points)
    direction = p if v is None else _layout(v)
    rest = (array(table), array(gout), res, one, lanes, grad.numpy())
    run(kernels.point_gradient, p, direction, v is not None, *rest)
    return grad.t()


class _Encode(Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, resolutions: Resolutions) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.resolutions = resolutions
        return _gather(points, table, resolutions)

    @staticmethod
    def backward(ctx: Any, gout: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        points, table = ctx.saved_tensors
        for_points = _PointGradient.apply(points, table, gout, ctx.resolutions) if ctx.needs_input_grad[0] else None
        for_table = (
            _TableGradient.apply(points, gout, table.shape, ctx.resolutions) if ctx.needs_input_grad[1] else None
        )
        return for_points, for_table, None


class _PointGradient(Function):
    """d <features, gout> / d points, itself differentiable once in all three."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, gout: Tensor, resolutions: Resolutions) -> Tensor:
        ctx.save_for_backward(points, table, gout)
        ctx.resolutions = resolutions
        return _point(points, table, gout, resolutions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        points, table, gout = ctx.saved_tensors
        need, res = ctx.needs_input_grad, ctx.resolutions
        return (
            _point(points, table, gout, res, v) if need[0] else None,
            _scatter(points, gout, table.shape, res, v) if need[1] else None,
            _gather(points, table, res, v) if need[2] else None,
            None,
        )


class _TableGradient(Function):
    """d <features, gout> / d table, itself differentiable once in points and gout."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, gout: Tensor, shape: torch.Size, resolutions: Resolutions) -> Tensor:
        ctx.save_for_backward(points, gout)
        ctx.resolutions = resolutions
        return _scatter(points, gout, shape, resolutions, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        points, gout = ctx.saved_tensors
        for_points = _point(points, v, gout, ctx.resolutions) if ctx.needs_input_grad[0] else None
        for_gout = _gather(points, v, ctx.resolutions) if ctx.needs_input_grad[1] else None
        return for_points, for_gout, None, None
