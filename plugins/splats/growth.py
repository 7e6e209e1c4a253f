"""How a set of Gaussians grows and shrinks: cloning, splitting, pruning and opacity resets.

Kerbl et al. 2023, section 5; by absolute gradients (Ye et al. 2024, "AbsGS"); opacities of clones as in Rota Bulò et
al. 2024 ("Revising Densification in Gaussian Splatting", eq. 9), so that a clone leaves the picture as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from core.config.base import Config
from core.config.schedule import Time, parse_time
from core.contracts import Step
from core.kernels.splatting.projection import rotation_matrices

_SHRINK = 1.6  # a half of a split Gaussian is this much smaller (Kerbl et al. 2023)


def _checked_time(value: Time) -> Time:
    parse_time(value)
    return value


Moment = Annotated[Time, AfterValidator(_checked_time)]


class GrowthConfig(Config):
    """When and where the set grows, and what is taken out."""

    every: int = Field(default=0, ge=0)
    """Steps between rounds of growing and pruning; 0 keeps the set as it starts."""
    start: Moment = "5%"
    """First step of growing: a number of steps, or a share of the stage."""
    end: Moment = "70%"
    """Last step of growing."""
    share: float = Field(default=0.15, ge=0, le=1)
    """At most this share of the set grows in a round: that with the largest gradients on screen."""
    above: float = Field(default=0.0, ge=0)
    """Only what has a mean absolute gradient above this on screen grows (3DGS: 0.0002, AbsGS: 0.0008)."""
    split: float = Field(default=0.04, gt=0)
    """Gaussians with a deviation above this, in world units, are split in two; smaller ones are cloned."""
    most: int = Field(default=20_000, ge=1)
    """The set never grows beyond this number."""
    faint: float = Field(default=0.01, ge=0, lt=1)
    """Gaussians with less opacity are taken out."""
    largest: float = Field(default=0.5, gt=0)
    """Gaussians with a deviation above this, in world units, are taken out."""
    widest: float = Field(default=0.0, ge=0)
    """Gaussians whose radius on screen was a larger share of the picture's height are taken out; 0 takes out none."""
    reset_every: int = Field(default=0, ge=0)
    """Steps between resets of the opacity, which fog does not survive; 0 resets never."""
    reset_to: float = Field(default=0.02, gt=0, lt=1)
    """The largest opacity after a reset."""

    def due(self, step: Step, every: int) -> bool:
        """Whether something that happens every so many steps happens after this one."""
        if not every or (step.index + 1) % every:
            return False
        first, last = (_step_of(t, step.total) for t in (self.start, self.end))
        return first <= step.index <= last


def _step_of(time: Time, total: int) -> float:
    value, share = parse_time(time)
    return value * max(total - 1, 1) if share else value


@dataclass
class Change:
    """What becomes of a set: row ``source`` [M] of the old set is copied to each new row.

    Attributes:
        source: [M] int64.
        fresh: [M] whether the new row starts without moments and is moved to a sample of its Gaussian.
        halved: [M] whether it is half of a split Gaussian.
        shared: [M] whether it shares its old opacity with a clone.
    """

    source: Tensor
    fresh: Tensor
    halved: Tensor
    shared: Tensor


@torch.no_grad()
def plan(options: GrowthConfig, gradient: Tensor, radius: Tensor, scales: Tensor, opacities: Tensor) -> Change:
    """Which rows stay, double, or go.

    Args:
        gradient: [N] mean absolute gradient on screen.  radius: [N] share of the picture's height.
        scales: [N, 3], opacities: [N] activated.
    """
    longest = scales.amax(-1)
    gone = (opacities < options.faint) | (longest > options.largest)
    if options.widest:
        gone |= radius > options.widest
    count = len(gradient)
    room = max(0, min(int(options.share * count), options.most - count + int(gone.sum())))
    wanted = torch.where(gone, -torch.inf, gradient)
    order = torch.argsort(wanted, descending=True, stable=True)[:room]
    grows = torch.zeros_like(gone)
    grows[order] = wanted[order] > options.above
    halves = grows & (longest > options.split)
    clones = grows & ~halves
    stay, cloned, split = (torch.nonzero(m)[:, 0] for m in (~gone & ~halves, clones, halves))
    source = torch.cat([stay, cloned, split, split])
    fresh = torch.arange(len(source), device=source.device) >= len(stay)
    return Change(source, fresh, halves[source], clones[source])


@torch.no_grad()
def grown(change: Change, values: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The new rows of ``means``, ``log_scales``, ``quaternions``, ``logits`` and whatever else the set has."""
    new = {name: value[change.source].clone() for name, value in values.items()}
    noise = torch.randn(len(change.source), 3, generator=generator).to(new["means"])
    scales = new["log_scales"].exp()
    away = (rotation_matrices(new["quaternions"]) @ (scales * noise)[..., None])[..., 0]
    new["means"] += away * change.fresh[:, None]
    new["log_scales"] -= math.log(_SHRINK) * change.halved[:, None]
    opacity = torch.sigmoid(new["logits"])
    shared = (1 - torch.sqrt((1 - opacity).clamp(min=0))).clamp(1e-5, 1 - 1e-5)
    new["logits"] = torch.where(change.shared, torch.logit(shared), new["logits"])
    return new


def over_processes(value: Tensor, largest: bool = False) -> Tensor:
    """The sum (or the largest) over all processes of a run: each saw other views, and all must grow alike."""
    distributed: Any = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        kind = distributed.ReduceOp.MAX if largest else distributed.ReduceOp.SUM
        distributed.all_reduce(value, op=kind)
    return value
