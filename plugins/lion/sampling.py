"""From noise to latents through both priors, and back: sampling, interpolation, diffuse and denoise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.diffusion.sampler import ddim_walk
from core.diffusion.sde import SDE, NoiseModel
from core.diffusion.sde_sampler import ancestral_samples, ode_samples

LEAST = 1e-3
"""Time from which latents are taken up to noise: at 0 there is none to be found."""


@dataclass(frozen=True)
class Latents:
    """Of B shapes: ``z`` [B, D] and ``h`` [B, N, 3 + F], or what they are at a later time."""

    z: Tensor
    h: Tensor

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: slice | Tensor) -> Latents:
        return Latents(self.z[index], self.h[index])

    def repeated(self, count: int) -> Latents:
        """Each shape ``count`` times in a row."""
        return Latents(self.z.repeat_interleave(count, 0), self.h.repeat_interleave(count, 0))


def told_model(score: Any, scale: float, condition: Tensor | None, *before: Tensor) -> NoiseModel:
    """The noise by a score model told ``before`` and ``condition`` [B, C], led away from the untold one by ``scale``
    (Ho and Salimans 2022, where 1 is the told one)."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        told: Tensor = score(x, t, *before, condition)
        if condition is None or scale == 1:
            return told
        untold = score(x, t, *before, torch.zeros_like(condition))
        return untold + scale * (told - untold)

    return model


class Walk:
    """Latents through time by both priors.

    Args:
        priors: score models under ``shape`` (not there without a global latent) and ``points``.
        options: the sampler, its steps or tolerance, the guidance.
    """

    def __init__(self, priors: Any, sde: SDE, options: Any) -> None:
        found = dict(priors.items())
        self.shape, self.points = found.get("shape"), found["points"]
        self.sde, self.options = sde, options

    def noise(self, count: int, sizes: tuple[int, int, int], random: torch.Generator, device: torch.device) -> Latents:
        """Of time 1; ``sizes`` are D, N and 3 + F."""
        size, points, channels = sizes
        z = self.sde.end_noise((count, size), random)
        return Latents(z.to(device), self.sde.end_noise((count, points, channels), random).to(device))

    @torch.no_grad()
    def down(self, noisy: Latents, told: Tensor | None, random: torch.Generator | None, begin: float = 1.0) -> Latents:
        """Latents of time ``begin`` taken to time 0: first ``z``, then ``h``, told that ``z``.

        Without ``random`` nothing is drawn anew, whatever the sampler: the way back of :meth:`up`.
        """
        travel = self._traveller(begin, 0.0, random)
        z = self._shape(noisy.z, told, travel)
        return Latents(z, travel(told_model(self.points, self.options.guidance, told, z), noisy.h))

    @torch.no_grad()
    def points_of(self, z: Tensor, h: Tensor, told: Tensor | None, random: torch.Generator) -> Tensor:
        """``h`` of time 0 for ``z`` as it is, from noise of time 1."""
        return self._traveller(1.0, 0.0, random)(told_model(self.points, self.options.guidance, told, z), h)

    @torch.no_grad()
    def up(self, latents: Latents, told: Tensor | None = None) -> Latents:
        """The noise of time 1 that the priors' ODE takes to these latents; without guidance."""
        travel = self._traveller(LEAST, 1.0, None)
        h = travel(told_model(self.points, 1.0, told, latents.z), latents.h)
        model = None if self.shape is None else told_model(self.shape, 1.0, told)
        return Latents(latents.z if model is None else travel(model, latents.z), h)

    def noised(self, latents: Latents, time: float, random: torch.Generator) -> Latents:
        """Latents of time 0 at ``time``; ``z`` stays as it is where there is no global latent."""

        def one(x: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=random).to(x)
            return self.sde.add_noise(x, noise, torch.full((len(x),), time, device=x.device))

        return Latents(latents.z if self.shape is None else one(latents.z), one(latents.h))

    def _shape(self, z: Tensor, told: Tensor | None, travel: Callable[[NoiseModel, Tensor], Tensor]) -> Tensor:
        if self.shape is None:
            return torch.zeros_like(z)
        return travel(told_model(self.shape, self.options.guidance, told), z)

    def _traveller(
        self, begin: float, end: float, random: torch.Generator | None
    ) -> Callable[[NoiseModel, Tensor], Tensor]:
        """Takes latents from one time to another; without ``random`` there is no ancestral sampling."""
        o, sde = self.options, self.sde
        if o.sampler == "ode":
            return lambda model, x: (
                ode_samples(model, sde, x, tolerance=o.tolerance, begin=begin, end=end or LEAST).latents
            )
        if o.sampler == "ancestral" and random is not None:
            return lambda model, x: ancestral_samples(model, sde, x, random, steps=o.steps, begin=begin).latents
        times = torch.linspace(begin, end, o.steps + 1)
        return lambda model, x: _ddim(model, sde, x, times, o.clip)


def _ddim(model: NoiseModel, sde: SDE, x: Tensor, times: Tensor, clip: float | None) -> Tensor:
    """Steps of the probability-flow ODE that are exact where the noise is (Song et al. 2021, eq. 13).

    At much noise a small error of the model is a large one of the estimate, which ``clip`` keeps in bounds.
    """

    def clean(noisy: Tensor, t: Tensor) -> Tensor:
        a, s = sde.scales(t, noisy)
        estimate = (noisy - s * model(noisy, t).to(noisy)) / a
        return estimate if clip is None else estimate.clamp(-clip, clip)

    process: Any = sde
    return ddim_walk(process, clean, x, [t.expand(len(x)).to(x) for t in times])


def between(a: Latents, b: Latents, share: Tensor) -> Latents:
    """Noise between that of two shapes (each of B = 1) at ``share`` [K] of the way, still N(0, I) where both were
    (Zeng et al. 2022, appendix)."""
    w = share.view(-1, 1)
    z = (1 - w).sqrt() * a.z + w.sqrt() * b.z
    w = share.view(-1, 1, 1)
    return Latents(z, (1 - w).sqrt() * a.h + w.sqrt() * b.h)
