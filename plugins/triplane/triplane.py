"""Geometry ``triplane``: three axis-aligned planes of features and a small network (Chan et al. 2022, "EG3D")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Context, Geometry, Step
from core.fields import Blob, BlobOptions, copies, fit_field, init_linear
from core.types import Render
from plugins.triplane.planes import sample_planes


class Triplane(Geometry):
    """Density [N] = softplus(network + bias(|x|)) of a point's features on the xy, xz and yz planes; 0 outside."""

    class Config(BlobOptions):
        resolution: int = Field(64, ge=2, le=1024)
        """Values along a side of each plane."""
        features: int = Field(8, ge=1, le=64)
        """Numbers per value."""
        reduce: Literal["sum", "product", "concat"] = "sum"
        """How the three planes' features meet: EG3D's sum, K-Planes' product (Fridovich-Keil et al. 2023), or all."""
        hidden: int = Field(32, ge=4)
        """Width of the network's hidden layer."""
        channels: int = Field(3, ge=1)
        """Features handed to the material."""
        network_lr: float = Field(0.25, gt=0)
        """Learning rate of the network as a share of the stage's."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        o = options
        generator = context.generator("triplane")
        noise = torch.rand(3, o.features, o.resolution, o.resolution, generator=generator) * 2 - 1
        # Factors start round 1, so that no plane switches the others off.
        self.planes = nn.Parameter(1 + 0.1 * noise if o.reduce == "product" else 0.1 * noise)
        self.first = nn.Linear(o.features * (3 if o.reduce == "concat" else 1) + 3, o.hidden)
        self.second = nn.Linear(o.hidden, 1 + o.channels)
        for layer in (self.first, self.second):
            init_linear(layer, generator)
        self.blob = Blob(o, context.bound)

    def param_groups(self) -> list[dict[str, Any]]:
        network = [*self.first.parameters(), *self.second.parameters()]
        return [{"params": [self.planes]}, {"params": network, "lr_scale": self.options.network_lr}]

    def update(self, step: Step) -> None:
        self.blob.update(step)

    def raw(self, points: Tensor) -> Tensor:
        """[N, 1 + channels] of the network at world points [N, 3], float32."""
        found = sample_planes(self.planes, points / self.context.bound)
        reduce = self.options.reduce
        if reduce == "concat":
            code = found.transpose(0, 1).flatten(1)
        else:
            code = found.prod(0) if reduce == "product" else found.sum(0)
        return self.second(F.silu(self.first(torch.cat([code, points], -1)))).float()

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raw = self.raw(points)
        return {"density": self.blob(raw[:, 0], points), "features": raw[:, 1:]}

    def density(self, points: Tensor) -> Tensor:
        return self.blob(self.raw(points)[:, 0], points)

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        if signal != "variation":
            return super().extra(signal, render, step)
        along = [self.planes.diff(dim=axis).square().mean() for axis in (2, 3)]
        return (along[0] + along[1]) / 2

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another density field: a copy where the shapes are the same, else a fit at random points."""
        if not (self.blob.like(other) and copies(self, other, "gain", "scale")):
            fit_field(self, other, "triplane-init", rate=0.02, step=step)
