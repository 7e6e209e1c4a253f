"""Renderer ``volume-proposal``: a small density of its own says where along a ray the few samples go.

Barron et al. 2022 ("Mip-NeRF 360"), section 3. The loss ``interlevel`` teaches it; nothing else does.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context, Step
from core.kernels.compositing import composite
from core.kernels.marching import RaySamples, stretch
from plugins.nerf.hash_grid import HashGrid
from plugins.nerf.proposal import excess, resample
from plugins.nerf.rays import RayRenderer

_GOLDEN = 0.618034  # a round's jitter, added to the one before: no two rounds agree


class VolumeProposal(RayRenderer):
    """Every ray through the scene's cube has ``samples`` samples, however empty or full it is."""

    class Config(RayRenderer.Config):
        samples: int = Field(default=24, ge=2)
        """Samples of the scene along each ray."""
        proposals: tuple[int, ...] = (48,)
        """Samples of the small density, in rounds: each round is placed by the one before, the first evenly."""
        density: HashGrid.Config = HashGrid.Config(levels=6, log2_table=13, finest=64, hidden=16, channels=1)
        """The small density, a hash grid."""
        spread: float = Field(default=0.05, ge=0, le=1)
        """Share of the samples laid out evenly, so that what the small density does not know is found."""
        anneal: float = Field(default=10.0, ge=1)
        """How soon the proposals are taken at their word: weights to the power a x / ((a - 1) x + 1) at a share x of
        the run."""

    power: Tensor
    box: Tensor

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        needs, gives = super().signals(options)
        return needs, [*gives, "interlevel"]

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.step_size = context.bound / options.samples
        self.proposal = HashGrid(options.density, context)
        self.register_buffer("power", torch.ones(()))
        self.register_buffer("box", torch.tensor([[-context.bound] * 3, [context.bound] * 3]), persistent=False)

    def param_groups(self) -> list[dict[str, Any]]:
        return self.proposal.param_groups()

    @torch.no_grad()
    def update(self, step: Step) -> None:
        self.proposal.update(step)
        share, slope = step.index / max(step.total - 1, 1), self.options.anneal
        self.power.fill_(slope * share / ((slope - 1) * share + 1))

    def _rays(self, origins: Tensor, directions: Tensor, jitter: Tensor | None, normals: bool) -> dict[str, Tensor]:
        t0, t1 = stretch(origins, directions, self.box)
        hit = torch.nonzero(t1 > t0)[:, 0]
        fences = torch.stack([t0[hit], t1[hit]], -1)
        weights, rounds = torch.ones_like(fences[:, :1]), list[tuple[Tensor, Tensor]]()
        shift = None if jitter is None else jitter[hit]
        for count in self.options.proposals:
            fences = self._next(fences, weights, count, shift)
            shift = None if shift is None else (shift + _GOLDEN) % 1
            weights = self._weights(self._packed(fences, hit, len(origins)), origins, directions).view(-1, count)
            rounds.append((fences, weights))
        fences = self._next(fences, weights, self.options.samples, shift)
        seen = self._shade(self._packed(fences, hit, len(origins)), origins, directions, normals)
        if jitter is not None:
            found = seen["weights"].view(-1, self.options.samples)
            apart = [excess(*proposed, fences, found) for proposed in rounds]
            total = torch.stack(apart).sum(0) if apart else torch.zeros_like(t0[hit])
            seen["interlevel"] = torch.zeros_like(t0).index_add(0, hit, total)
        return seen

    def _next(self, fences: Tensor, weights: Tensor, count: int, shift: Tensor | None) -> Tensor:
        return resample(fences, weights.detach() ** self.power, count, shift, self.options.spread)

    def _weights(self, samples: RaySamples, origins: Tensor, directions: Tensor) -> Tensor:
        """[M] how the small density's samples share a ray."""
        density = self.proposal.density(samples.positions(origins, directions))
        nothing = density.new_zeros(len(density), 0)
        return composite(density, nothing, samples.t_starts, samples.t_ends, samples.offsets).weights

    @staticmethod
    def _packed(fences: Tensor, hit: Tensor, rays: int) -> RaySamples:
        """Intervals of the rays ``hit`` [R] out of ``rays``."""
        each = fences.shape[1] - 1
        counts = torch.zeros(rays, dtype=torch.int64, device=hit.device).index_fill_(0, hit, each)
        starts, ends = fences[:, :-1].reshape(-1), fences[:, 1:].reshape(-1)
        return RaySamples(starts, ends, hit.repeat_interleave(each), F.pad(counts.cumsum(0), (1, 0)))

    def extra_repr(self) -> str:
        return f"{self.options.samples} samples a ray after {list(self.options.proposals)} proposals"
