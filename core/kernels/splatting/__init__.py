"""Splatting: what a set of flat Gaussians in the picture's plane adds up to, front to back.

Only this part is a kernel. Projection (:mod:`core.kernels.splatting.projection`) and colours
(:mod:`core.spherical_harmonics`) are a few operations per Gaussian and view, which PyTorch differentiates well;
blending touches every pair of a Gaussian and a pixel, and is where the time goes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch

__all__ = ["ALPHA_MAX", "ALPHA_MIN", "STOP", "Rasterized", "rasterize"]

ALPHA_MAX = 0.99
"""Opacities above count as this: one Gaussian never closes a pixel, and the backward pass can divide by 1 - alpha."""
ALPHA_MIN = 1 / 255
"""What a Gaussian adds below this alpha is left out: the step of an 8-bit picture."""
STOP = 1e-4
"""A Gaussian that would let less light than this through ends its pixel, and is left out itself."""


class Rasterized(NamedTuple):
    """What :func:`rasterize` gives.

    Attributes:
        values: [B, H, W, C] sum of w * value, not over a background.
        opacity: [B, H, W] sum of w, in [0, 1).
    """

    values: Tensor
    opacity: Tensor


def rasterize(
    means: Tensor,  # [B, N, 2] pixels
    conics: Tensor,  # [B, N, 3]
    opacities: Tensor,  # [B, N] in [0, 1]
    values: Tensor,  # [B, N, C]
    depths: Tensor,  # [B, N]
    height: int,
    width: int,
    abs_gradient: Tensor | None = None,
    backend: str | None = None,
) -> Rasterized:
    """Blend Gaussians in order of depth (Kerbl et al. 2023, eq. 3; Zwicker et al. 2001).

    At the pixel centre p, with d = p - mean: alpha_i = o_i exp(-1/2 (a dx^2 + 2 b dx dy + c dy^2)), left out where it
    is under :data:`ALPHA_MIN`; w_i = alpha_i T_i, T_i = product over nearer k of (1 - alpha_k), ended by :data:`STOP`.
    Kerbl et al. clamp alpha_i at 0.99, here o_i is clamped: the same up to an opacity of 0.99, and within 1 % above.

    Args:
        means: [B, N, 2], from the upper left corner (x, y); pixel centres lie at k + 0.5.
        conics: [B, N, 3], the inverse 2D covariance as (a, b, c), positive definite.
        opacities: [B, N].
        values: [B, N, C], colours and whatever else is to be blended.
        depths: [B, N], for the order alone, not differentiated; what has no depth > 0 is not drawn.
        height, width: of the pictures.
        abs_gradient: [B, N, 2] or None; the backward pass adds to it, per Gaussian, the sum over pixels of the absolute
            gradient in its mean (Ye et al. 2024, "AbsGS", eq. 7), by which sets of Gaussians are grown.
        backend: forces one of :func:`core.kernels.dispatch.backends`.

    Returns:
        Both are differentiable, once, in means, conics, opacities and values.

    Raises:
        UserError: shapes that do not fit, an empty picture, or an impossible backend.
    """
    shape = means.shape[:2]
    fits = means.ndim == 3 and means.shape[2] == 2 and conics.shape == (*shape, 3) and opacities.shape == shape
    if not fits or values.shape[:2] != shape or values.ndim != 3 or depths.shape != shape:
        raise UserError(
            "rasterize: means must be [B, N, 2], conics [B, N, 3], opacities and depths [B, N], values [B, N, C], not "
            + ", ".join(str(list(x.shape)) for x in (means, conics, opacities, depths, values))
            + "."
        )
    if height < 1 or width < 1:
        raise UserError(f"rasterize: a picture of {height} x {width} pixels cannot be drawn.")
    if abs_gradient is not None and abs_gradient.shape != means.shape:
        raise UserError(f"rasterize: abs_gradient must be {list(means.shape)}, not {list(abs_gradient.shape)}.")
    module = dispatch.resolve("splat", means.device.type, backend)
    inputs = (conics.to(means), opacities.to(means).clamp(max=ALPHA_MAX), values.to(means))
    with torch.no_grad():
        depths = torch.where(torch.isfinite(depths) & (depths > 0), depths, 0).to(means)
    return Rasterized(*module.rasterize(means, *inputs, depths, height, width, abs_gradient))
