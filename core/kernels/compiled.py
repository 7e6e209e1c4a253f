"""PyTorch references through ``torch.compile``: for GPUs without a library of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class Compiled:
    """A function of tensors, compiled at its first call.

    With ``inputs``, its first so many arguments are differentiable as often as asked: compiled graphs themselves
    cannot be differentiated twice, so second derivatives go through the function as it is. Without, the graph is
    what ``torch.compile`` makes of it, differentiable once.
    """

    def __init__(self, function: Callable[..., Any], inputs: int = 0) -> None:
        self.function, self.inputs = function, inputs
        self._fast: Callable[..., Any] | None = None

    def fast(self, *args: Any) -> Any:
        """The compiled function."""
        if self._fast is None:
            # Dynamic shapes: numbers of points change at every step, and compiling anew would cost more than it gains.
            self._fast = torch.compile(self.function, dynamic=True)
        return self._fast(*args)

    def __call__(self, *args: Any) -> Any:
        return _Shell.apply(self, *args) if self.inputs else self.fast(*args)


class _Shell(Function):
    @staticmethod
    def forward(ctx: Any, kernel: Compiled, *args: Any) -> Any:
        ctx.kernel, ctx.rest = kernel, args[kernel.inputs :]
        ctx.save_for_backward(*args[: kernel.inputs])
        return kernel.fast(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kernel, saved = ctx.kernel, ctx.saved_tensors
        need = ctx.needs_input_grad[1 : 1 + kernel.inputs]
        again = torch.is_grad_enabled()  # create_graph: keep the saved inputs' own graph
        with torch.enable_grad():
            inputs = saved if again else [t.detach().requires_grad_(n) for t, n in zip(saved, need, strict=True)]
            out = (kernel.function if again else kernel.fast)(*inputs, *ctx.rest)
            wanted = [t for t, n in zip(inputs, need, strict=True) if n]
            outputs = out if isinstance(out, tuple) else (out,)
            moved = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
            seen, slopes = [o for o, _ in moved], [g for _, g in moved]
            found = iter(torch.autograd.grad(seen, wanted, slopes, create_graph=again, allow_unused=True))
        return None, *(next(found) if n else None for n in need), *(None for _ in ctx.rest)
