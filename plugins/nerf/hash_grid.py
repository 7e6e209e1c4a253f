"""Geometry ``hash-grid``: density and features from a multiresolution hash encoding and a small network.

Müller et al. 2022 (Instant-NGP); the density bias that starts the optimisation as a soft blob is DreamFusion's
(Poole et al. 2022, appendix A.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from core.contracts import Context, Geometry, Step
from core.fields import Blob, BlobOptions, HashField, copies, fit_field


class HashGrid(HashField):
    """Density [N] = softplus(network + bias(|x|)); outside the cube of half side ``context.bound`` it is 0."""

    class Config(HashField.Config, BlobOptions):
        """Options of the encoding and of the density."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context, "hash-grid")
        self.blob = Blob(options, context.bound)

    def update(self, step: Step) -> None:
        super().update(step)
        self.blob.update(step)

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raw = self.raw(points)
        return {"density": self.blob(raw[:, 0], points), "features": raw[:, 1:]}

    def density(self, points: Tensor) -> Tensor:
        return self.blob(self.raw(points)[:, 0], points)

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another density field: a copy where the shapes are the same, else a fit at random points.

        ``step`` is called with the index of each fitting step.
        """
        if not (self.blob.like(other) and copies(self, other, "gain", "scale")):
            fit_field(self, other, "hash-grid-init", step=step)
