"""Geometry ``hash-grid``: density and features from a multiresolution hash encoding and a small network.

Müller et al. 2022 (Instant-NGP); the density bias that starts the optimisation as a soft blob is DreamFusion's
(Poole et al. 2022, appendix A.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Context, Geometry
from core.kernels.hash_grid import HashGridSpec, hash_grid


class HashGrid(Geometry):
    """Density [N] = softplus(network + bias(|x|)); outside the cube of half side ``context.bound`` it is 0."""

    class Config(BaseConfig):
        levels: int = Field(12, ge=1, le=32)
        """Resolutions of the encoding."""
        features: int = Field(2, ge=1, le=8)
        """Numbers per level."""
        log2_table: int = Field(15, ge=8, le=24)
        """Rows of each level's table, as a power of two."""
        base_resolution: int = Field(8, ge=2)
        """Cells per side of the coarsest level."""
        finest: int = Field(192, ge=2)
        """Cells per side of the finest level."""
        hidden: int = Field(32, ge=4)
        """Width of the network's hidden layer."""
        channels: int = Field(3, ge=1)
        """Features handed to the material."""
        bias: float = 3.0
        """Height of the density blob at the start; 0 starts from thin fog."""
        bias_radius: float = Field(0.4, gt=0)
        """Radius at which the blob's bias crosses zero, in world units."""
        network_lr: float = Field(0.25, gt=0)
        """Learning rate of the network as a share of the stage's."""
        gain: float = Field(3.0, gt=0)
        """Multiplies the network's output before it becomes density; more lets shapes change faster."""
        scale: float = Field(25.0, gt=0)
        """Density per unit of the network's output."""
        kernel: Literal["auto", "reference", "compiled", "numba", "tinycudann"] = "auto"
        """Backend of the encoding."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        o = options
        finest = max(o.finest, o.base_resolution)
        self.spec = HashGridSpec(o.levels, o.features, o.log2_table, o.base_resolution, finest)
        generator = context.generator("hash-grid")
        self.table = nn.Parameter(self.spec.table(generator, scale=1e-3))
        self.first = nn.Linear(self.spec.width + 3, o.hidden)
        self.second = nn.Linear(o.hidden, 1 + o.channels)
        for layer in (self.first, self.second):
            _init_linear(layer, generator)

    FIT_STEPS = 300
    FIT_POINTS = 1 << 14

    def param_groups(self) -> list[dict[str, Any]]:
        network = [*self.first.parameters(), *self.second.parameters()]
        return [{"params": [self.table]}, {"params": network, "lr_scale": self.options.network_lr}]

    def _raw(self, points: Tensor) -> Tensor:
        bound = self.context.bound
        backend = None if self.options.kernel == "auto" else self.options.kernel
        code = hash_grid((points / bound + 1) / 2, self.table, self.spec.resolutions, backend=backend)
        return self.second(F.silu(self.first(torch.cat([code, points], -1))))

    def _density(self, raw: Tensor, points: Tensor) -> Tensor:
        o = self.options
        blob = o.bias * (1 - points.norm(dim=-1) / o.bias_radius)
        inside = (points.abs() <= self.context.bound).all(-1)
        return F.softplus(raw[:, 0] * o.gain + blob) * o.scale * inside

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raw = self._raw(points).float()
        return {"density": self._density(raw, points), "features": raw[:, 1:]}

    def density(self, points: Tensor) -> Tensor:
        return self._density(self._raw(points).float(), points)

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another density field: a copy where the shapes are the same, else a fit at random points.

        ``step`` is called with the index of each fitting step.
        """
        if isinstance(other, HashGrid) and other.spec == self.spec and _shapes(other) == _shapes(self):
            self.load_state_dict(other.state_dict())
            return
        generator = self.context.generator("hash-grid-init")
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        for index in range(self.FIT_STEPS):
            points = (torch.rand(self.FIT_POINTS, 3, generator=generator) * 2 - 1) * self.context.bound
            points = points.to(self.table.device)
            with torch.no_grad():
                wanted = other.field(points)
            with torch.enable_grad():
                found = self.field(points)
                # The logarithm: in a dense core a factor of two matters no more than in fog.
                apart = (found["density"].log1p() - wanted["density"].log1p()).square().mean()
                solid = (wanted["density"] > 1).float()[:, None]
                apart = apart + (solid * (found["features"] - wanted["features"]).square()).mean()
                optimizer.zero_grad()
                apart.backward()
            optimizer.step()
            if step is not None:
                step(index)


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [value.shape for value in module.state_dict().values()]


def _init_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """Kaiming-uniform from the component's own stream; biases at zero."""
    bound = (3.0 / layer.in_features) ** 0.5
    with torch.no_grad():
        layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound)
        layer.bias.zero_()
