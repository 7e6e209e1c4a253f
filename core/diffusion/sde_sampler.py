"""Samples and likelihoods of score models over continuous time (Song et al. 2021, section 4.3 and appendix D)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.diffusion.sde import SDE, NoiseModel, shaped
from core.errors import UserError


@dataclass
class Drawn:
    """Latents [B, ...] and how many calls of the network they took."""

    latents: Tensor
    calls: int


@torch.no_grad()
def ode_samples(
    model: NoiseModel, sde: SDE, start: Tensor,
    *, tolerance: float = 1e-5, end: float | None = None, begin: float = 1.0,
) -> Drawn:  # fmt: skip
    """The probability-flow ODE ``dz/dt = f z + g^2 noise(z, t) / (2 s)`` to time ``end``, by an adaptive RK45.

    Args:
        start: [B, ...] latents at time ``begin`` (``sde.end_noise`` at time 1); one before ``end`` runs upwards.
        tolerance: relative and absolute error of a step; the fewer the calls the larger it is.
        end: least time; 1e-5, or ``sde.start`` where s_0 is not 0.

    Raises:
        UserError: the solver cannot go on: the network's answers are not finite.
    """
    last = _least(sde) if end is None else end

    def slope(t: float, z: Tensor) -> Tensor:
        return velocity(model, sde, z, torch.full((len(z),), t, device=z.device))

    (z,), calls = _integrate(lambda t, parts: [slope(t, parts[0])], [start], begin, last, tolerance)
    return Drawn(z, calls)


@torch.no_grad()
def ancestral_samples(
    model: NoiseModel, sde: SDE, start: Tensor, generator: torch.Generator, *, steps: int = 1000, begin: float = 1.0
) -> Drawn:
    """Reverse steps of ``q(z_s | z_t, z_0)`` (Ho et al. 2020) from time ``begin``, ``steps`` of equal length; no noise
    in the last."""
    z = start
    times = torch.linspace(begin, _least(sde), steps + 1, dtype=torch.float64)
    for k in range(steps):
        t, s = (time.expand(len(z)).to(z) for time in (times[k], times[k + 1]))
        (a_t, s_t), (a_s, s_s) = sde.scales(t, z), sde.scales(s, z)
        ratio = a_t / a_s
        added = (s_t.square() - ratio.square() * s_s.square()).clamp(min=0)
        z = (z - added / s_t * model(z, t).to(z)) / ratio
        if k + 1 < steps:
            noise = torch.randn(z.shape, generator=generator).to(z)
            z = z + s_s / s_t * added.sqrt() * noise
    return Drawn(z, steps)


def log_likelihood(
    model: NoiseModel, sde: SDE, z0: Tensor, generator: torch.Generator,
    *, tolerance: float = 1e-5, probes: int = 1, start: float | None = None,
) -> Tensor:  # fmt: skip
    """log p(z_0) [B] in nats by the probability-flow ODE, its divergence by Hutchinson's estimate.

    Args:
        z0: [B, ...] latents.
        probes: random signs whose mean is taken for each latent; each costs a pass.
        start: least time, as in :func:`ode_samples`.
    """
    first = _least(sde) if start is None else start
    signs = [torch.randint(0, 2, z0.shape, generator=generator).to(z0) * 2 - 1 for _ in range(probes)]

    def slope(t: float, parts: list[Tensor]) -> list[Tensor]:
        time = torch.full((len(z0),), t, device=z0.device)
        with torch.enable_grad():
            z = parts[0].detach().requires_grad_()
            out = velocity(model, sde, z, time)
            traces = [_trace(out, z, sign, keep=k + 1 < probes) for k, sign in enumerate(signs)]
        return [out.detach(), torch.stack(traces).mean(0)]

    (z1, gained), _ = _integrate(slope, [z0.detach(), z0.new_zeros(len(z0))], first, 1.0, tolerance)
    variance = sde.end_std**2
    flat = z1.flatten(1).double()
    prior = -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))
    return (prior + gained.double()).to(z0)


def velocity(model: NoiseModel, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    """dz/dt of the probability-flow ODE at ``z`` [B, ...] and times ``t`` [B]."""
    _, s = sde.scales(t, z)
    drift, squared = shaped(sde.drift(t), z), shaped(sde.diffusion_squared(t), z)
    return drift * z + 0.5 * squared / s * model(z, t).to(z)


def _trace(out: Tensor, z: Tensor, sign: Tensor, keep: bool) -> Tensor:
    """[B] Hutchinson's estimate of the trace of d out / d z."""
    (row,) = torch.autograd.grad((out * sign).sum(), z, retain_graph=keep)
    return (row * sign).flatten(1).sum(1)


def _least(sde: SDE) -> float:
    """The time nearest to 0 at which there is noise."""
    return 0.0 if float(sde.variance(torch.zeros((), dtype=torch.float64))) > 0 else 1e-5


def _integrate(
    slope: Callable[[float, list[Tensor]], list[Tensor]], parts: list[Tensor], first: float, last: float, tol: float
) -> tuple[list[Tensor], int]:
    """RK45 (Dormand-Prince) over several tensors at once; the solver adds up in float64."""
    from scipy.integrate import solve_ivp

    sizes = [p.numel() for p in parts]

    def unpack(flat: np.ndarray) -> list[Tensor]:
        pieces = torch.from_numpy(flat).split(sizes)
        return [piece.to(p).view_as(p) for piece, p in zip(pieces, parts, strict=True)]

    def pack(values: list[Tensor]) -> np.ndarray:
        return torch.cat([v.detach().cpu().double().flatten() for v in values]).numpy()

    def flat_slope(t: float, y: np.ndarray) -> np.ndarray:
        made = pack(slope(t, unpack(y)))
        if not np.isfinite(made).all():
            raise UserError(f"the score model's answers are not finite at time {t:.4g}: it cannot be sampled")
        return made

    found = solve_ivp(flat_slope, (first, last), pack(parts), method="RK45", rtol=tol, atol=tol, t_eval=[last])
    if not found.success:
        raise UserError(f"the sampler stopped before time {last:.4g}: {found.message}")
    return unpack(found.y[:, -1]), int(found.nfev)
