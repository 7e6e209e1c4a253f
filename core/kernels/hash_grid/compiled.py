"""The reference through ``torch.compile``: for GPUs without a library of their own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import reference


def encode(points: Tensor, table: Tensor, resolutions: tuple[int, ...]) -> Tensor:
    """Hash-encode points: see :func:`core.kernels.hash_grid.hash_grid` for the contract."""
    return _Encode.apply(points, table, resolutions)


@lru_cache(maxsize=1)
def _compiled() -> Any:
    # Dynamic shapes: the number of points changes at every step, and compiling anew would cost more than it gains.
    return torch.compile(reference.encode, dynamic=True)


class _Encode(Function):
    """Compiled graphs cannot be differentiated twice, so second derivatives go through the eager reference."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, resolutions: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.resolutions = resolutions
        return _compiled()(points, table, resolutions)

    @staticmethod
    def backward(ctx: Any, gout: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        points, table = ctx.saved_tensors
        need = ctx.needs_input_grad[:2]
        wanted = [t for t, n in zip((points, table), need, strict=True) if n]
        if torch.is_grad_enabled():  # create_graph: keep the saved inputs' own graph
            features = reference.encode(points, table, ctx.resolutions)
            grads = iter(torch.autograd.grad(features, wanted, gout, create_graph=True))
        else:
            with torch.enable_grad():
                inputs = [t.detach().requires_grad_(n) for t, n in zip((points, table), need, strict=True)]
                features = _compiled()(*inputs, ctx.resolutions)
            grads = iter(torch.autograd.grad(features, [t for t in inputs if t.requires_grad], gout))
        first, second = (next(grads) if n else None for n in need)
        return first, second, None
