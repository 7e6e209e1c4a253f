"""The learned variance of a reverse step and the variational bound that teaches it (Nichol & Dhariwal 2021).

A network answers with the noise and, in further channels, ``v`` in about [-1, 1]: the logarithm of the variance lies
between that of the posterior (v = -1) and that of the forward step (v = 1), eq. 15.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def log_variance(scheduler: Any, share: Tensor, t: Tensor) -> Tensor:
    """[B, C, H, W] logarithm of the variance that ``share`` [B, C, H, W] (v of eq. 15) means at timesteps ``t`` [B]."""
    beta, posterior = (_at(x, t, share) for x in (scheduler.betas.double(), _posterior_variance(scheduler)))
    weight = (share + 1) / 2
    return weight * beta.log() + (1 - weight) * posterior.log()


def variational_bound(scheduler: Any, x0: Tensor, noisy: Tensor, t: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """[B] terms of the bound in bits per number: KL of the true and the predicted reverse step, and at ``t`` 0 the
    negative log-likelihood of 8-bit pictures.

    Args:
        x0, noisy: [B, C, H, W] pictures in [-1, 1] and with noise.  t: [B] timesteps.
        noise: [B, C, H, W] the predicted noise; no gradient goes through it (section 3.1 of the paper).
        share: [B, C, H, W] the predicted variance, as ``log_variance`` reads it.
    """
    a = _at(_tables(scheduler)[1], t, x0)
    guess = (noisy - (1 - a).sqrt() * noise.detach()) / a.sqrt()
    true_mean, mean = (_posterior_mean(scheduler, x, noisy, t) for x in (x0, guess))
    true_log = _at(_posterior_variance(scheduler), t, x0).log()
    predicted_log = log_variance(scheduler, share, t)
    gap = true_log - predicted_log
    kl = 0.5 * (-1 - gap + gap.exp() + (true_mean - mean).square() * (-predicted_log).exp())
    likelihood = -_discretised(x0, mean, 0.5 * predicted_log)
    first = (t == 0).view(-1, 1, 1, 1).to(x0.device)
    return torch.where(first, likelihood, kl).flatten(1).mean(1) / math.log(2)


def _tables(scheduler: Any) -> tuple[Tensor, Tensor]:
    """``(beta, alpha_bar)`` [T] in float64: in float32, 1 - alpha_bar of the first steps keeps three digits."""
    beta = scheduler.betas.double()
    return beta, (1 - beta).cumprod(0)


def _posterior_variance(scheduler: Any) -> Tensor:
    """[T] of q(x_{t-1} | x_t, x_0); that of the first step, which is 0, is replaced by the second's."""
    beta, alpha_bar = _tables(scheduler)
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    variance = beta * (1 - before) / (1 - alpha_bar)
    return torch.cat([variance[1:2], variance[1:]])


def _posterior_mean(scheduler: Any, x0: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
    beta, alpha_bar = _tables(scheduler)
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    clean = before.sqrt() * beta / (1 - alpha_bar)
    kept = (1 - beta).sqrt() * (1 - before) / (1 - alpha_bar)
    return _at(clean, t, x0) * x0 + _at(kept, t, x0) * noisy


def _at(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """[B, 1, 1, 1] of ``values`` [T] at ``t`` [B]."""
    return values[t.cpu()].to(like).view(-1, *(1,) * (like.dim() - 1))


def _discretised(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of 8-bit values ``x`` in [-1, 1] under a Gaussian, integrated over each value's bin."""
    normal = torch.distributions.Normal(0.0, 1.0)
    inverse = (-log_scale).exp()
    upper = normal.cdf((x - mean + 1 / 255) * inverse)
    lower = normal.cdf((x - mean - 1 / 255) * inverse)
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp(min=1e-12).log()
