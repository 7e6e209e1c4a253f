"""Geometry ``voxel``: density and features on a dense grid, without a network.

The radiance field of Score Jacobian Chaining (Wang et al. 2023, section 5) and of its forerunner DVGO (Sun et al.
2022): raw values are interpolated, then activated. With ``channels: latent`` the features live in the prior's space, as
in SJC and Latent-NeRF (Metzer et al. 2023); material ``latent`` renders them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.contracts import Context, Geometry, Step
from core.errors import UserError
from core.fields import Blob, BlobOptions, copies, fit_field
from core.kernels.hash_grid import hash_grid
from core.types import Render


class Voxel(Geometry):
    """Density [N] = softplus(grid + bias(|x|)), features [N, C] = grid; trilinear; 0 outside the cube.

    The table [1, (cells + 1)^3, 1 + C], x fastest, is one dense level of the hash-grid kernel: its CPU backend is some
    five times faster than ``grid_sample`` and differentiable twice.
    """

    class Config(BlobOptions):
        cells: int = Field(64, ge=2, le=320)
        """Cells per side."""
        channels: int | Literal["latent"] = 3
        """Features handed to the material; `latent` has as many as the first guidance's prior has latents."""
        features_lr: float = Field(1.0, gt=0)
        """Learning rate of the features as a share of the stage's."""
        kernel: Literal["auto", "reference", "compiled", "numba"] = "auto"
        """Backend of the interpolation."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.blob = Blob(options, context.bound)
        rows, channels = (options.cells + 1) ** 3, channels_of(options.channels, context)
        noise = context.generator("voxel")
        self.shape = nn.Parameter(0.02 * torch.randn(1, rows, 1, generator=noise))
        self.colour = nn.Parameter(0.02 * torch.randn(1, rows, channels, generator=noise))

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.shape]}, {"params": [self.colour], "lr_scale": self.options.features_lr}]

    def update(self, step: Step) -> None:
        self.blob.update(step)

    def _at(self, points: Tensor, table: Tensor) -> Tensor:
        backend = None if self.options.kernel == "auto" else self.options.kernel
        return hash_grid((points / self.context.bound + 1) / 2, table, (self.options.cells,), backend=backend)

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raw = self._at(points, torch.cat([self.shape, self.colour], -1))
        return {"density": self.blob(raw[:, 0], points), "features": raw[:, 1:]}

    def density(self, points: Tensor) -> Tensor:
        return self.blob(self._at(points, self.shape)[:, 0], points)

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        return self._at(points, self.colour)

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        if signal != "variation":
            return super().extra(signal, render, step)
        return variation(self.shape, self.options.cells) + variation(self.colour, self.options.cells)

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another density field: a copy where the shapes are the same, else a fit at random points."""
        if not (self.blob.like(other) and copies(self, other, "gain", "scale", "cells")):
            fit_field(self, other, "voxel-init", rate=0.1, step=step)


def channels_of(channels: int | str, context: Context) -> int:
    """The number of features: as told, or that of the latents of the first guidance's prior.

    Raises:
        UserError: there is no prior, or it has no latents.
    """
    if isinstance(channels, int):
        if channels < 1:
            raise UserError(f"geometry.channels is {channels}; a field needs at least 1 feature")
        return channels
    prior = context.parts.get("prior")
    if prior is None:
        raise UserError("geometry.channels is 'latent', but no guidance is here whose latents could be counted")
    return int(prior.space()[0])


def variation(table: Tensor, cells: int) -> Tensor:
    """Mean squared difference of neighbours along the three axes of a table [1, (cells + 1)^3, C]."""
    grid = table.view(cells + 1, cells + 1, cells + 1, -1)
    return torch.stack([(grid.diff(dim=axis)).square().mean() for axis in range(3)]).mean()
