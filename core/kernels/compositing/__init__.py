"""Compositing: what samples along rays add up to, by the volume rendering integral."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch

__all__ = ["Composited", "composite"]


class Composited(NamedTuple):
    """What :func:`composite` gives.

    Attributes:
        values: [N, C] sum of w * value, not over a background.
        opacity: [N] sum of w, in [0, 1].
        depth: [N] sum of w * middle of the interval; divide by the opacity for the mean depth of what was hit.
        weights: [M] w of each sample.
    """

    values: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor


def composite(
    sigmas: Tensor,  # [M] >= 0
    values: Tensor,  # [M, C]
    t_starts: Tensor,  # [M]
    t_ends: Tensor,  # [M]
    offsets: Tensor,  # [N + 1] int64
    early_stop: float = 0.0,
    backend: str | None = None,
) -> Composited:
    """Add up packed samples along each ray (Max 1995; Mildenhall et al. 2020, eq. 3).

    With tau_i = sigma_i * (t_end_i - t_start_i): w_i = T_i * (1 - exp(-tau_i)), T_i = exp(-(tau_1 + ... + tau_{i-1})).

    Args:
        sigmas: [M] densities, >= 0.
        values: [M, C], colours or features.
        t_starts, t_ends: [M]; not differentiated.
        offsets: [N + 1]; ray n owns samples offsets[n] to offsets[n + 1], front to back.
        early_stop: samples behind a transmittance below this weigh nothing and get no gradient; 0 keeps all.
        backend: forces one of :func:`core.kernels.dispatch.backends`.

    Returns:
        All four outputs are differentiable in sigmas and values, gradients of gradients too.

    Raises:
        UserError: shapes that do not fit, or an impossible backend.
    """
    count = sigmas.shape[0]
    if sigmas.ndim != 1 or values.ndim != 2 or values.shape[0] != count:
        raise UserError(
            f"composite: sigmas must be [M] and values [M, C], not {list(sigmas.shape)}, {list(values.shape)}."
        )
    if t_starts.shape != sigmas.shape or t_ends.shape != sigmas.shape or offsets.ndim != 1 or not len(offsets):
        raise UserError(f"composite: t_starts and t_ends must be [M] = [{count}] and offsets [N + 1].")
    module = dispatch.resolve("composite", sigmas.device.type, backend)
    t_starts, t_ends = t_starts.detach().to(sigmas), t_ends.detach().to(sigmas)
    return Composited(*module.composite(sigmas, values.to(sigmas), t_starts, t_ends, offsets, float(early_stop)))
