"""Splatting compiled for the CPU: tiles in parallel, backward written out. See :mod:`.numba_kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from core.kernels.numba_tools import array, run

from . import ALPHA_MIN, STOP
from . import numba_kernels as kernels
from . import numba_lists as tiling


def rasterize(
    means: Tensor,
    conics: Tensor,
    opacities: Tensor,
    values: Tensor,
    depths: Tensor,
    height: int,
    width: int,
    abs_gradient: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(values [B, H, W, C], opacity [B, H, W]): see :func:`core.kernels.splatting.rasterize`."""
    if means.dtype not in (torch.float32, torch.float64):  # half floats hold no pixel coordinates
        inputs = (x.float() for x in (means, conics, opacities, values, depths))
        found = _Rasterize.apply(*inputs, height, width, abs_gradient)
        return found[0].to(means), found[1].to(means)
    return _Rasterize.apply(means, conics, opacities, values, depths, height, width, abs_gradient)


class _Lists:
    """Which Gaussians each tile of each view shows, front to back.

    Attributes:
        tiles: [B * T + 1] where each tile's part of the lists starts.
        ids: [S] the Gaussian of each entry.
        rows: [S] the entry's place when entries are ordered by Gaussian: where its gradient is put.
        first: [B * N + 1] where each Gaussian's part of that order starts.
    """

    def __init__(self, gaussians: tuple[np.ndarray, ...], depths: Tensor, height: int, width: int) -> None:
        views, count = depths.shape
        across, down = -(-width // tiling.WIDE), -(-height // tiling.TALL)
        order = array(torch.argsort(depths, dim=1, stable=True))
        boxes = np.empty((views, count, 4), np.int32)
        least = gaussians[0].dtype.type(ALPHA_MIN)
        touched = np.empty((views, count), np.int64)
        run(tiling.boxes, *gaussians, array(depths), least, height, width, boxes, touched)
        self.first = np.concatenate([np.zeros(1, np.int64), np.cumsum(touched.reshape(-1))])
        sizes = np.zeros((views, across * down), np.int64)
        run(tiling.tile_sizes, boxes, across, sizes)
        self.tiles = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes.reshape(-1))])
        total = int(self.first[-1])
        self.ids, self.rows = np.empty(total, np.int32), np.empty(total, np.int64)
        run(tiling.fill, boxes, order, self.first, self.tiles, across, down, self.ids, self.rows)


class _Rasterize(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        means, conics, opacities, values, depths, height, width, ctx.abs_gradient = inputs
        gaussians = tuple(array(x) for x in (means, conics, opacities))
        lists = _Lists(gaussians, depths, height, width)
        views, channels = means.shape[0], values.shape[2]
        total = means.new_zeros(views, height, width, channels)
        light = means.new_ones(views, height, width)
        last = np.zeros((views, height, width), np.int32)
        real = gaussians[0].dtype.type
        ctx.limits = (real(1), real(ALPHA_MIN), real(STOP))
        rest = (lists.tiles, lists.ids, *ctx.limits, total.numpy(), light.numpy(), last)
        run(kernels.forward, (*gaussians, array(values)), *rest)
        ctx.save_for_backward(means, conics, opacities, values, light)
        ctx.lists, ctx.last = lists, last
        return total, 1 - light

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_total: Tensor, g_opacity: Tensor) -> tuple[Tensor | None, ...]:
        means, conics, opacities, values, light = ctx.saved_tensors
        lists = ctx.lists
        inputs = tuple(array(x) for x in (means, conics, opacities, values))
        rows = np.zeros((len(lists.ids), 8 + values.shape[2]), inputs[0].dtype)
        rest = (lists.tiles, lists.ids, lists.rows, *ctx.limits[:2], array(light), ctx.last)
        run(kernels.backward, inputs, *rest, array(g_total), array(g_opacity), rows)
        g_means, g_conics, g_opacities, g_values = (torch.empty_like(x) for x in (means, conics, opacities, values))
        size = torch.empty_like(means)
        out = [x.numpy() for x in (g_means, g_conics, g_opacities, g_values, size)]
        run(tiling.gather, rows, lists.first, *out)
        if ctx.abs_gradient is not None:
            ctx.abs_gradient += size.to(ctx.abs_gradient)
        return g_means, g_conics, g_opacities, g_values, None, None, None, None
