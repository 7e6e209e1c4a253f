"""Compositing compiled for the CPU: rays in parallel, backward written out."""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd import Function

from core.kernels.numba_tools import array, run

from . import reference


def composite(
    sigmas: Tensor, values: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor, early_stop: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(values [N, C], opacity [N], depth [N], weights [M]): see :func:`core.kernels.compositing.composite`."""
    return _Composite.apply(sigmas, values, t_starts, t_ends, offsets, early_stop)


class _Composite(Function):
    @staticmethod
    def forward(ctx: Any, sigmas: Tensor, values: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        t_starts, t_ends, offsets, early_stop = rest
        rays, real = offsets.shape[0] - 1, np.float64 if sigmas.dtype == torch.float64 else np.float32
        total, opacity = sigmas.new_empty(rays, values.shape[1]), sigmas.new_empty(rays)
        depth, weights, after = sigmas.new_empty(rays), torch.empty_like(sigmas), torch.empty_like(sigmas)
        inputs = [array(x) for x in (sigmas, values, t_starts, t_ends, offsets)]
        outputs = [x.numpy() for x in (total, opacity, depth, weights, after)]
        run(_forward, *inputs, real(early_stop), real(1), *outputs)
        ctx.save_for_backward(sigmas, values, t_starts, t_ends, offsets, weights, after)
        ctx.early_stop = early_stop
        return total, opacity, depth, weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sigmas, values, t_starts, t_ends, offsets, weights, after = ctx.saved_tensors
        need = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph: a second derivative is wanted, which only the reference has
            with torch.enable_grad():
                outputs = reference.composite(sigmas, values, t_starts, t_ends, offsets, ctx.early_stop)
            wanted = [x for x, n in zip((sigmas, values), need, strict=True) if n]
            found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True))
            first, second = (next(found) if n else None for n in need)
            return first, second, None, None, None, None
        g_sigmas, g_values = torch.empty_like(sigmas), torch.empty_like(values)
        inputs = [array(x) for x in (values, t_starts, t_ends, offsets, weights, after, *grads)]
        one = inputs[0].dtype.type(1)
        run(_backward, *inputs, one, g_sigmas.numpy(), g_values.numpy())
        return g_sigmas if need[0] else None, g_values if need[1] else None, None, None, None, None


@njit(parallel=True, cache=True, error_model="numpy")
def _forward(sigmas, values, t_starts, t_ends, offsets, early_stop, one, total, opacity, depth, weights, after):
    """Outputs as of ``composite``; ``after`` [M] is the transmittance behind each sample, -1 where it was skipped."""
    zero, half = one - one, one / (one + one)
    channels = values.shape[1]
    for ray in prange(len(offsets) - 1):
        hit, far, transmittance = zero, zero, one
        total[ray, :] = zero
        for i in range(offsets[ray], offsets[ray + 1]):
            if transmittance < early_stop:
                weights[i], after[i] = zero, -one
                continue
            change = np.expm1(-sigmas[i] * (t_ends[i] - t_starts[i]))  # -alpha, exact for thin samples
            weight = -transmittance * change
            transmittance *= one + change
            weights[i], after[i] = weight, transmittance
            hit += weight
            far += weight * (half * (t_starts[i] + t_ends[i]))
            for c in range(channels):
                total[ray, c] += weight * values[i, c]
        opacity[ray], depth[ray] = hit, far


@njit(parallel=True, cache=True, error_model="numpy")
def _backward(
    values, t_starts, t_ends, offsets, weights, after, g_total, g_opacity, g_depth, g_weights, one, g_sigmas, g_values
):
    """With G_i = d loss / d w_i: d loss / d tau_i = G_i * T_{i+1} - sum over k > i of G_k * w_k."""
    zero, half = one - one, one / (one + one)
    channels = values.shape[1]
    for ray in prange(len(offsets) - 1):
        behind = zero
        for i in range(offsets[ray + 1] - 1, offsets[ray] - 1, -1):
            weight = weights[i]
            if after[i] < zero:
                g_sigmas[i] = zero
                g_values[i, :] = zero
                continue
            g = g_weights[i] + g_opacity[ray] + g_depth[ray] * (half * (t_starts[i] + t_ends[i]))
            for c in range(channels):
                g += g_total[ray, c] * values[i, c]
                g_values[i, c] = weight * g_total[ray, c]
            g_sigmas[i] = (t_ends[i] - t_starts[i]) * (g * after[i] - behind)
            behind += g * weight
