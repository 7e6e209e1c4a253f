"""What score models of latents are trained for, and what that teaches the encoder (Vahdat et al. 2021, section 3).

The cross entropy of an encoder's posterior and a score model's distribution is an integral over time of
``g^2 / (2 s^2) |noise - predicted|^2``; it is estimated at one random time per latent. Everything here is in nats and
summed, never averaged, over a latent's numbers: an evidence bound adds it to a likelihood that is summed too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core.diffusion.sde import SDE, NoiseModel, shaped

Weighting = Literal["likelihood", "reweighted", "unweighted"]
"""Weight of the squared error over time: ``g^2 / (2 s^2)``; ``g^2 / 2``; 1."""

_CELLS = 4096


def weight(sde: SDE, weighting: Weighting, t: Tensor) -> Tensor:
    """The weight [B] of the squared error of the noise at times ``t`` [B]."""
    if weighting == "unweighted":
        return torch.ones_like(t)
    half = 0.5 * sde.diffusion_squared(t)
    return half / sde.variance(t) if weighting == "likelihood" else half


@dataclass
class Times:
    """Random times.

    Attributes:
        t: [B] in [sde.start, 1].  density: [B] with which each was drawn; an integral's estimate divides by it.
    """

    t: Tensor
    density: Tensor


class TimeSampler:
    """Draws times uniformly, or where a weighting's integrand is large: in proportion to ``weight(t) (1 - s_t^2)``.

    That is the integrand of latents distributed as N(0, I), whose estimate then has no variance at all (Vahdat et al.
    2021, appendix B): with variance preserved the logarithm of s^2 is uniform for the likelihood's weighting, s^2
    itself for the reweighted one, and an inverse error function for none. Here the density is constant in each
    of 4096 cells, narrower towards the start, so one rule serves every process and the estimate is unbiased exactly.

    Args:
        importance: the weighting to draw for; several draw for each in turn, so that one set of times serves them all;
            None draws uniformly.
    """

    def __init__(self, sde: SDE, importance: Weighting | Sequence[Weighting] | None) -> None:
        even = torch.linspace(sde.start, 1.0, _CELLS // 2 + 1, dtype=torch.float64)
        near = sde.start + (1.0 - sde.start) * torch.logspace(-6, 0, _CELLS // 2, dtype=torch.float64)
        self.edges = torch.cat([even, near[:-1]]).unique()
        width = self.edges.diff()
        middle = self.edges[:-1] + 0.5 * width
        wanted = [importance] if isinstance(importance, str) else list(importance or ())
        heights = [weight(sde, one, middle) * sde.unit_error(middle) for one in wanted] or [torch.ones_like(middle)]
        self.density = torch.stack([height / (height * width).sum() for height in heights]).mean(0)
        self.chances = self.density * width

    def __call__(self, count: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Times:
        """``count`` times."""
        cell = torch.multinomial(self.chances, count, replacement=True, generator=generator)
        place = torch.rand(count, generator=generator, dtype=torch.float64)
        t = self.edges[cell] + place * (self.edges[cell + 1] - self.edges[cell])
        return Times(t.float().to(device), self.density[cell].float().to(device))


def cross_entropy(sde: SDE, squared_error: Tensor, times: Times) -> Tensor:
    """Nats of each number of the latents, of the shape of ``squared_error`` [B, ...]; unbiased, one draw.

    Sum it over a group of channels to know what that group costs. Differentiable in ``squared_error``.
    """
    w = weight(sde, "likelihood", times.t) / times.density
    first = sde.variance(torch.tensor(sde.start, dtype=torch.float64))
    return shaped(w, squared_error) * squared_error + 0.5 * (1 + math.log(2 * math.pi * float(first)))


def squared_error(model: NoiseModel, sde: SDE, z0: Tensor, times: Times, noise: Tensor) -> Tensor:
    """``(noise - predicted)^2`` at ``times``, of the shape of ``z0`` [B, ...], in float32 at least."""
    predicted = model(sde.add_noise(z0, noise, times.t), times.t)
    return (noise - predicted.to(noise)).square()


@dataclass
class JointLoss:
    """What one batch of latents gives.

    Attributes:
        loss: [] to be back-propagated, once: into the latents it sends the gradient of the sum of ``cross_entropy``
            times ``scale``, into the score model's parameters that of ``score``, and nothing of one into the other.
        cross_entropy: nats of each number [B, ...], detached.
        score: [] the score model's own objective, detached.
    """

    loss: Tensor
    cross_entropy: Tensor
    score: Tensor


def joint_loss(
    model: nn.Module,
    sde: SDE,
    z0: Tensor,
    times: Times,
    noise: Tensor,
    weighting: Weighting = "reweighted",
    scale: float = 1.0,
) -> JointLoss:
    """End-to-end training in one pass: the encoder's loss goes through the score model, which keeps only its own.

    The two objectives weight one squared error differently. As a sample's error depends on no other sample, the
    gradient that arrives at its z_t differs by the ratio of its two weights alone, and is multiplied by that on its way
    to the latents; the parameters have met the score model's weights only. One forward and one backward pass do what
    two optimisers do with two passes and discarded gradients. A model that mixes samples (batch norm) would be wrong.

    Args:
        model: called as a :data:`~core.diffusion.sde.NoiseModel`.
        z0: [B, ...] samples of the posterior; detach them where the encoder is not to learn.
        times: drawn for either weighting; both estimates are unbiased.
        weighting: of the score model's objective, a mean over the batch of sums over the latents.
        scale: of the encoder's loss, e.g. the weight of the divergence divided by the batch.
    """
    own = weight(sde, weighting, times.t) / times.density / len(z0)
    theirs = scale * weight(sde, "likelihood", times.t) / times.density
    z_t = _ScaleGradient.apply(sde.add_noise(z0, noise, times.t), shaped(theirs / own, z0))
    error = (noise - model(z_t, times.t).to(noise)).square()
    loss = (shaped(own, error) * error).sum()
    return JointLoss(loss, cross_entropy(sde, error.detach(), times), loss.detach())


def separate_loss(
    model: nn.Module, sde: SDE, z0: Tensor, q: tuple[Times, Tensor], p: tuple[Times, Tensor],
    weighting: Weighting = "reweighted", scale: float = 1.0,
) -> JointLoss:  # fmt: skip
    """As :func:`joint_loss`, with times and noise of their own for the encoder (``q``) and the score model (``p``).

    Each estimate has the least variance, for two passes: the encoder's goes through a copy of the score model whose
    parameters are constants.
    """
    constants = {name: value.detach() for name, value in model.state_dict(keep_vars=True).items()}

    def frozen(z_t: Tensor, t: Tensor) -> Tensor:
        out: Any = torch.func.functional_call(model, constants, (z_t, t))
        return torch.as_tensor(out)

    entropy = cross_entropy(sde, squared_error(frozen, sde, z0, *q), q[0])
    error = squared_error(model, sde, z0.detach(), *p)
    own = weight(sde, weighting, p[0].t) / p[0].density / len(z0)
    score = (shaped(own, error) * error).sum()
    return JointLoss(scale * entropy.sum() + score, entropy.detach(), score.detach())


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return grads[0] * factor, None
