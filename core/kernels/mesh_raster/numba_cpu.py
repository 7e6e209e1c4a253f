"""Mesh rasterisation compiled for the CPU: bands of rows in parallel, backward written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from core.kernels.numba_tools import array, run

from . import numba_kernels as kernels
from .reference import LEAST_AREA, STEPS


def visible(vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> Tensor:
    """[B, H, W] int64: see :func:`core.kernels.mesh_raster.rasterise`; computed in float64 throughout."""
    face = torch.full((vertices.shape[0], height, width), -1, dtype=torch.int64)
    if len(faces) and len(vertices):
        points = vertices.double()
        rows = np.empty((vertices.shape[0], len(faces), 4), np.int32)
        run(kernels.bounds, array(points), array(faces), near, LEAST_AREA, height, width, rows)
        run(kernels.visible, array(points), array(faces), near, rows, face.numpy())
    return face


def weights(vertices: Tensor, faces: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """(bary [B, H, W, 3], depth [B, H, W]) of known faces, once differentiable in the vertices."""
    return _Weights.apply(vertices, faces, face)


def interpolate(values: Tensor, faces: Tensor, face: Tensor, bary: Tensor) -> Tensor:
    """[B, H, W, C]: see :func:`core.kernels.mesh_raster.interpolate`; once differentiable."""
    shared = values.ndim == 2
    return _Interpolate.apply(values[None] if shared else values, faces, face, bary)


def silhouettes(
    vertices: Tensor, faces: Tensor, across: Tensor, face: Tensor, depth: Tensor, near: float
) -> tuple[Tensor, Tensor]:
    """(edges [B, H, W, 2, 2], front [B, H, W, 2]) as :func:`core.kernels.mesh_raster.reference.silhouettes`."""
    edges = torch.full((*face.shape, 2, 2), -1, dtype=torch.int64)
    front = torch.zeros((*face.shape, 2), dtype=torch.int64)
    inputs = [array(x) for x in (vertices.double(), faces, across, face, depth.double())]
    run(kernels.silhouettes, *inputs, near, STEPS, edges.numpy(), front.numpy())
    return edges, front


class _Weights(Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, faces: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        points = vertices.double()  # in float64 throughout: weights of small faces are differences of large products
        bary, depth = points.new_zeros(*face.shape, 3), points.new_zeros(face.shape)
        run(kernels.weights, *(array(x) for x in (points, faces, face, bary, depth)))
        ctx.save_for_backward(vertices, faces, face, bary)
        return bary.to(vertices), depth.to(vertices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_bary: Tensor, g_depth: Tensor) -> tuple[Tensor | None, ...]:
        vertices, faces, face, bary = ctx.saved_tensors
        points = vertices.double()
        found = torch.zeros_like(points)
        inputs = (points, faces, face, bary, g_bary.double(), g_depth.double(), found)
        run(kernels.weights_backward, *(array(x) for x in inputs))
        return found.to(vertices), None, None


class _Interpolate(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, faces: Tensor, face: Tensor, bary: Tensor) -> Tensor:
        out = values.new_zeros(*face.shape, values.shape[-1])
        run(kernels.interpolate, *(array(x) for x in (values, faces, face, bary, out)))
        ctx.save_for_backward(values, faces, face, bary)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, faces, face, bary = ctx.saved_tensors
        # A set of sums for each picture, whoever shares the values: the result does not depend on threads.
        g_values = values.new_zeros(face.shape[0], *values.shape[1:])
        g_bary = torch.zeros_like(bary)
        inputs = [array(x) for x in (values, faces, face, bary, grad, g_values, g_bary)]
        run(kernels.interpolate_backward, *inputs)
        if values.shape[0] != face.shape[0]:
            g_values = g_values.sum(0, keepdim=True)
        return g_values, None, None, g_bary
