"""Real spherical harmonics up to degree 3, and the colours that splats store in them.

The order, the signs and the factors are those of Sloan 2013 ("Efficient Spherical Harmonic Evaluation") as Kerbl et al.
2023 use them: a splat file of any program means the same here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

DEGREE_MAX = 3
Y0 = 0.28209479177387814
"""The constant harmonic: ``sh_0 = (colour - 0.5) / Y0`` is a colour seen from everywhere."""
_Y1 = 0.4886025119029199
_Y2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
_Y3 = (
    -0.5900435899266435, 2.890611442640554, -0.4570457994644658, 0.3731763325901154,
    -0.4570457994644658, 1.445305721320277, -0.5900435899266435,
)  # fmt: skip


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """[..., K] with K = (degree + 1)^2: the basis at unit ``directions`` [..., 3].

    Raises:
        ValueError: a degree outside 0 to 3.
    """
    if not 0 <= degree <= DEGREE_MAX:
        raise ValueError(f"spherical harmonics are there for degrees 0 to {DEGREE_MAX}, not {degree}")
    x, y, z = directions.unbind(-1)
    found = [torch.full_like(x, Y0)]
    if degree > 0:
        found += [-_Y1 * y, _Y1 * z, -_Y1 * x]
    xx, yy, zz = x * x, y * y, z * z
    if degree > 1:
        found += [_Y2[0] * x * y, _Y2[1] * y * z, _Y2[2] * (2 * zz - xx - yy), _Y2[3] * x * z, _Y2[4] * (xx - yy)]
    if degree > 2:
        found += [
            _Y3[0] * y * (3 * xx - yy), _Y3[1] * x * y * z, _Y3[2] * y * (4 * zz - xx - yy),
            _Y3[3] * z * (2 * zz - 3 * xx - 3 * yy), _Y3[4] * x * (4 * zz - xx - yy), _Y3[5] * z * (xx - yy),
            _Y3[6] * x * (xx - 3 * yy),
        ]  # fmt: skip
    return torch.stack(found, -1)


def sh_colors(sh: Tensor, directions: Tensor) -> Tensor:
    """Colours of splats seen along unit directions: ``0.5 + sum_k sh_k Y_k(d)``, not below 0.

    Args:
        sh: [N, K, 3], K = 1, 4, 9 or 16.
        directions: [..., N, 3] from the camera to the splat.

    Returns:
        [..., N, 3]. A colour at 0 keeps the gradient that would raise it.
    """
    basis = harmonics(directions, round(sh.shape[1] ** 0.5) - 1)
    return bounded(0.5 + (basis[..., None] * sh).sum(-2), low=0.0)


def bounded(value: Tensor, low: float = -torch.inf, high: float = torch.inf) -> Tensor:
    """``value`` clamped to [low, high]; gradients that lead back inside pass (a plain clamp has none out there, and
    what has left its range would never return)."""
    return _Bounded.apply(value, low, high)  # type: ignore[no-any-return]


class _Bounded(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.low, ctx.high = low, high
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (value,) = ctx.saved_tensors
        (g,) = grads
        # A step goes against the gradient: out there only one that leads inside is let through.
        away = ((value < ctx.low) & (g > 0)) | ((value > ctx.high) & (g < 0))
        return torch.where(away, 0, g), None, None
