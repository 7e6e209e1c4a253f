"""Geometry ``hash-grid``: density and features from a multiresolution hash encoding and a small network.

Müller et al. 2022 (Instant-NGP); the density bias that starts the optimisation as a soft blob is DreamFusion's
(Poole et al. 2022, appendix A.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from core.config.schedule import Schedule
from core.contracts import Context, Geometry, Step
from core.fields import HashField, copies, fit_field


class HashGrid(HashField):
    """Density [N] = softplus(network + bias(|x|)); outside the cube of half side ``context.bound`` it is 0."""

    class Config(HashField.Config):
        bias: Schedule = Schedule([(0, 3.0)])
        """Height of the density blob; 0 starts from thin fog. Lower it over the run to take the blob away."""
        bias_radius: Schedule = Schedule([(0, 0.4)])
        """Radius at which the blob's bias crosses zero, in world units."""
        gain: float = Field(3.0, gt=0)
        """Multiplies the network's output before it becomes density; more lets shapes change faster."""
        scale: float = Field(25.0, gt=0)
        """Density per unit of the network's output."""

        @field_validator("bias_radius")
        @classmethod
        def _positive(cls, value: Schedule) -> Schedule:
            if value.extent[0] <= 0:
                raise ValueError(f"expected a radius above 0, found {value.extent[0]:g}")
            return value

    blob: Tensor  # [2] bias and bias_radius as they are now: part of the checkpoint, for exports run no step

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context, "hash-grid")
        self.register_buffer("blob", torch.tensor([options.bias.at(0, 2), options.bias_radius.at(0, 2)]))

    def update(self, step: Step) -> None:
        super().update(step)
        o = self.options
        self.blob[0], self.blob[1] = o.bias.at(step.index, step.total), o.bias_radius.at(step.index, step.total)

    def _density(self, raw: Tensor, points: Tensor) -> Tensor:
        o = self.options
        blob = self.blob[0] * (1 - points.norm(dim=-1) / self.blob[1])
        inside = (points.abs() <= self.context.bound).all(-1)
        return F.softplus(raw[:, 0] * o.gain + blob) * o.scale * inside

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raw = self.raw(points)
        return {"density": self._density(raw, points), "features": raw[:, 1:]}

    def density(self, points: Tensor) -> Tensor:
        return self._density(self.raw(points), points)

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another density field: a copy where the shapes are the same, else a fit at random points.

        ``step`` is called with the index of each fitting step.
        """
        # A blob that would change at the first step would leave another density than the one copied.
        blob = getattr(other, "blob", None)
        same = blob is not None and torch.equal(blob, self.blob)
        if not (same and copies(self, other, "gain", "scale")):
            fit_field(self, other, "hash-grid-init", step=step)
