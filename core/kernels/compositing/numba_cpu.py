"""Compositing compiled for the CPU: rays in parallel, backward written out."""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange, types
from numba.extending import overload
from torch import Tensor
from torch.autograd import Function

from core.kernels.numba_tools import array, run

from . import reference

_SUMS = {"reassoc", "contract"}  # sums in any order, fused: still the same bits at every run


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


def _expm1(x):
    """e^x - 1 for x <= 0, exact for small x too."""
    raise NotImplementedError  # compiled only


@overload(_expm1)
def _expm1_of(x):
    if x != types.float32:
        return lambda x: math.expm1(x)
    c1, c2, c3, c4, c5, c6, c7, c8 = (np.float32(1 / math.factorial(k)) for k in range(1, 9))
    two, least, step = np.float32(2), np.float32(-18), np.float32(1 / 32)

    def short(x):
        # e^2y - 1 = (e^y - 1) (e^y + 1), five times over: no table and no branch, as vectors want it. Below -18 the
        # result is -1 in float32.
        y = (x if x > least else least) * step
        e = y * (c1 + y * (c2 + y * (c3 + y * (c4 + y * (c5 + y * (c6 + y * (c7 + y * c8)))))))
        for _ in range(5):
            e *= e + two
        return e

    return short


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _changes(sigmas, t_starts, t_ends, out):
    for i in range(len(out)):
        out[i] = _expm1(-sigmas[i] * (t_ends[i] - t_starts[i]))  # -alpha


@njit(cache=True, error_model="numpy")
def _march(weights, after, early_stop, one):
    """Weights and the transmittance behind each sample, from minus the alphas in ``after``."""
    transmittance = one
    for i in range(len(after)):
        change = after[i]
        if transmittance < early_stop:
            weights[i], after[i] = one - one, -one
        else:
            weights[i] = -transmittance * change
            transmittance *= one + change
            after[i] = transmittance


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _sums(weights, t_starts, t_ends, zero):
    """Sum of the weights, and of weight times both ends."""
    hit, far = zero, zero
    for i in range(len(weights)):
        hit += weights[i]
        far += weights[i] * (t_starts[i] + t_ends[i])
    return hit, far


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _forward(sigmas, values, t_starts, t_ends, offsets, early_stop, one, total, opacity, depth, weights, after):
    """Outputs as of ``composite``; ``after`` [M] is the transmittance behind each sample, -1 where it was skipped."""
    zero, half = one - one, one / (one + one)
    # Ray by ray in several loops, each over one ray's samples: what is no running product becomes vectors.
    for ray in prange(len(offsets) - 1):
        i0, i1 = offsets[ray], offsets[ray + 1]
        near, away, weight, colors = t_starts[i0:i1], t_ends[i0:i1], weights[i0:i1], values[i0:i1]
        _changes(sigmas[i0:i1], near, away, after[i0:i1])
        _march(weight, after[i0:i1], early_stop, one)
        hit, far = _sums(weight, near, away, zero)
        opacity[ray], depth[ray] = hit, half * far
        for c in range(values.shape[1]):
            color = zero
            for i in range(len(weight)):
                color += weight[i] * colors[i, c]
            total[ray, c] = color


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _slopes(t_starts, t_ends, g_weights, g_opacity, g_depth, half, out):
    """Gradients of the weights, but for what comes by the values."""
    for i in range(len(out)):
        out[i] = g_weights[i] + g_opacity + g_depth * (half * (t_starts[i] + t_ends[i]))


@njit(cache=True, error_model="numpy", fastmath=_SUMS)
def _unmarch(t_starts, t_ends, weights, after, g, zero):
    """Gradients of the weights to those of the densities, in place; what was skipped has none."""
    behind = zero
    for k in range(len(g)):
        i = len(g) - 1 - k
        slope = g[i]
        seen = after[i] >= zero
        g[i] = (t_ends[i] - t_starts[i]) * (slope * after[i] - behind) if seen else zero
        behind += slope * weights[i]


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _backward(
    values, t_starts, t_ends, offsets, weights, after, g_total, g_opacity, g_depth, g_weights, one, g_sigmas, g_values
):
    """With G_i = d loss / d w_i: d loss / d tau_i = G_i * T_{i+1} - sum over k > i of G_k * w_k."""
    zero, half = one - one, one / (one + one)
    for ray in prange(len(offsets) - 1):
        i0, i1 = offsets[ray], offsets[ray + 1]
        near, away, weight, colors = t_starts[i0:i1], t_ends[i0:i1], weights[i0:i1], values[i0:i1]
        g, g_colors = g_sigmas[i0:i1], g_values[i0:i1]
        _slopes(near, away, g_weights[i0:i1], g_opacity[ray], g_depth[ray], half, g)
        for c in range(values.shape[1]):
            slope = g_total[ray, c]
            for i in range(len(weight)):
                g[i] += slope * colors[i, c]
                g_colors[i, c] = weight[i] * slope
        _unmarch(near, away, weight, after[i0:i1], g, zero)
