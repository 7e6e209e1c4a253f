"""What several fields share: a hash-encoded network, how one field is fitted to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config
from core.config.schedule import Schedule
from core.contracts import Context, Geometry, Step
from core.errors import UserError
from core.kernels.hash_grid import HashGridSpec, hash_grid
from core.meshing.surface import overrides

FIT_STEPS = 300
FIT_POINTS = 1 << 14


def init_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """Kaiming-uniform from a component's own stream; biases at zero."""
    bound = (3.0 / layer.in_features) ** 0.5
    with torch.no_grad():
        layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound)
        layer.bias.zero_()


class BlobOptions(Config):
    """How a network's output becomes density; options of several geometries."""

    bias: Schedule = Schedule([(0, 3.0)])
    """Height of the density blob; 0 starts from thin fog. Lower it over the run to take the blob away."""
    bias_radius: Schedule = Schedule([(0, 0.4)])
    """Radius at which the blob's bias crosses zero, in world units."""
    gain: float = Field(default=3.0, gt=0)
    """Multiplies the network's output before it becomes density; more lets shapes change faster."""
    scale: float = Field(default=25.0, gt=0)
    """Density per unit of the network's output."""

    @field_validator("bias_radius")
    @classmethod
    def _positive(cls, value: Schedule) -> Schedule:
        if value.extent[0] <= 0:
            raise ValueError(f"expected a radius above 0, found {value.extent[0]:g}")
        return value


class Blob(nn.Module):
    """Density softplus(gain raw + bias (1 - |x| / radius)) scale, 0 outside the cube (Poole et al. 2022, appendix A.2).

    Bias and radius as they are now are a buffer, so that they are part of a checkpoint: an export runs no step.
    """

    now: Tensor  # [2] bias and radius

    def __init__(self, options: Any, bound: float) -> None:
        super().__init__()
        self.options, self.bound = options, bound
        self.register_buffer("now", self._at(0, 2))

    def _at(self, step: int, total: int) -> Tensor:
        return torch.tensor([self.options.bias.at(step, total), self.options.bias_radius.at(step, total)])

    def update(self, step: Step) -> None:
        """Set bias and radius for a step."""
        self.now.copy_(self._at(step.index, step.total))

    def forward(self, raw: Tensor, points: Tensor) -> Tensor:
        """[N] density from what the network gives [N] at world points [N, 3]."""
        blob = self.now[0] * (1 - points.norm(dim=-1) / self.now[1])
        inside = (points.abs() <= self.bound).all(-1)
        return F.softplus(raw * self.options.gain + blob) * self.options.scale * inside

    def like(self, other: Geometry) -> bool:
        """Whether another geometry's blob is this one: else a copy would change at the first step."""
        blob = getattr(other, "blob", None)
        return isinstance(blob, Blob) and torch.equal(blob.now, self.now)


class HashField(Geometry):
    """A geometry whose small network reads a multiresolution hash encoding (Müller et al. 2022).

    Levels come in over the run where ``active`` says so (Li et al. 2023, "Neuralangelo", section 3.3; the last one
    fades in): level l has weight ``clamp(active L - l, 0, 1)``, kept in the buffer ``shown``.
    """

    class Config(Config):
        levels: int = Field(default=12, ge=1, le=32)
        """Resolutions of the encoding."""
        features: int = Field(default=2, ge=1, le=8)
        """Numbers per level."""
        log2_table: int = Field(default=15, ge=8, le=24)
        """Rows of each level's table, as a power of two."""
        base_resolution: int = Field(default=8, ge=2)
        """Cells per side of the coarsest level."""
        finest: int = Field(default=192, ge=2)
        """Cells per side of the finest level."""
        active: Schedule = Schedule([(0, 1.0)])
        """Share of the levels that take part, in [0, 1]; raise it over the run to find large shapes first."""
        hidden: int = Field(default=32, ge=4)
        """Width of the network's hidden layers."""
        hidden_layers: int = Field(default=1, ge=1, le=8)
        """How many of them."""
        activation: Literal["silu", "relu"] = "silu"
        """What follows each of them."""
        channels: int = Field(default=3, ge=1)
        """Features handed to the material."""
        network_lr: float = Field(default=0.25, gt=0)
        """Learning rate of the network as a share of the stage's."""
        kernel: Literal["auto", "reference", "compiled", "numba", "tinycudann"] = "auto"
        """Backend of the encoding."""

    shown: Tensor

    def __init__(self, options: Any, context: Context, stream: str) -> None:
        super().__init__(options, context)
        o = options
        self.spec = HashGridSpec(
            o.levels, o.features, o.log2_table, o.base_resolution, max(o.finest, o.base_resolution)
        )
        generator = context.generator(stream)
        self.table = nn.Parameter(self.spec.table(generator, scale=1e-3))
        self.first = nn.Linear(self.spec.width + 3, o.hidden)
        self.between = nn.ModuleList(nn.Linear(o.hidden, o.hidden) for _ in range(o.hidden_layers - 1))
        self.second = nn.Linear(o.hidden, 1 + o.channels)
        for layer in (self.first, *self.between, self.second):
            init_linear(layer, generator)
        self.register_buffer("shown", self._weights(o.active.at(0, 2)))

    def param_groups(self) -> list[dict[str, Any]]:
        network = [p for part in (self.first, self.between, self.second) for p in part.parameters()]
        return [{"params": [self.table]}, {"params": network, "lr_scale": self.options.network_lr}]

    def update(self, step: Step) -> None:
        self.shown.copy_(self._weights(self.options.active.at(step.index, step.total)))

    def _weights(self, active: float) -> Tensor:
        return (active * self.spec.levels - torch.arange(self.spec.levels)).clamp(0, 1)

    @property
    def cell(self) -> float:
        """Side of a cell of the finest level that takes part, world units."""
        count = max(int(self.shown.count_nonzero()), 1)
        return 2 * self.context.bound / self.spec.resolutions[count - 1]

    def _code(self, points: Tensor) -> Tensor:
        """[N, L F] the encoding; zeros for levels that are not yet there, which are not computed either."""
        backend = None if self.options.kernel == "auto" else self.options.kernel
        unit, count = (points / self.context.bound + 1) / 2, int(self.shown.count_nonzero())
        if not count:
            return points.new_zeros(len(points), self.spec.width)
        table = self.table if count == self.spec.levels else self.table[:count]
        code = hash_grid(unit, table, self.spec.resolutions[:count], backend=backend)
        if count == self.spec.levels and bool((self.shown == 1).all()):
            return code
        code = code * self.shown[:count].repeat_interleave(self.spec.features)
        return F.pad(code, (0, self.spec.width - code.shape[1]))

    def raw(self, points: Tensor) -> Tensor:
        """[N, 1 + channels] of the network at world points [N, 3], float32."""
        bend = F.silu if self.options.activation == "silu" else F.relu
        hidden = bend(self.first(torch.cat([self._code(points), points], -1)))
        for layer in self.between:
            hidden = bend(layer(hidden))
        return self.second(hidden).float()


def copies(field: Geometry, other: Geometry, *same: str) -> bool:
    """Take over the state of a field of the very kind and shape, whose options in ``same`` agree; tells whether."""
    if type(other) is not type(field):
        return False
    shapes = [{k: v.shape for k, v in f.state_dict().items()} for f in (field, other)]
    names = (*same, "base_resolution", "finest", "reduce", "activation")
    options = [[getattr(f.options, name, None) for name in names] for f in (field, other)]
    if shapes[0] != shapes[1] or options[0] != options[1]:
        return False
    field.load_state_dict(other.state_dict())
    return True


def fit(
    field: Geometry,
    error: Callable[[Tensor], Tensor],
    stream: str,
    rate: float = 0.01,
    step: Callable[[int], None] | None = None,
) -> None:
    """Lower ``error(points)``, a scalar, at random points [N, 3] of the scene's cube with Adam.

    Args:
        stream: name of the random stream; the same fit every time.
        rate: learning rate of a parameter group with ``lr_scale`` 1.
        step: called with the index of each fitting step.
    """
    context = field.context
    generator = context.generator(stream)
    groups = [{"params": g["params"], "lr": rate * g.get("lr_scale", 1.0)} for g in field.param_groups()]
    optimizer = torch.optim.Adam(groups, lr=rate, betas=(0.9, 0.99))
    for index in range(FIT_STEPS):
        points = (torch.rand(FIT_POINTS, 3, generator=generator) * 2 - 1) * context.bound
        with torch.enable_grad():
            apart = error(points.to(context.device))
            optimizer.zero_grad()
            apart.backward()
        optimizer.step()
        if step is not None:
            step(index)
    field.zero_grad(set_to_none=True)


def fit_field(
    field: Geometry, other: Geometry, stream: str, rate: float = 0.01, step: Callable[[int], None] | None = None
) -> None:
    """Fit density and features to those of another field (arguments as in :func:`fit`).

    Densities are compared as logarithms: in a dense core a factor of two matters no more than in fog. Features count
    where there is matter, in the channels that both have.

    Raises:
        UserError: ``other`` has no density field.
    """
    if not overrides(other, "field"):
        raise UserError(f"{type(field).__name__} cannot start from {type(other).__name__}, which has no density field")

    def error(points: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = other.field(points)
        found = field.field(points)
        apart = (found["density"].log1p() - wanted["density"].log1p()).square().mean()
        return apart + feature_error(found["features"], wanted["features"], wanted["density"] > 1)

    fit(field, error, stream, rate, step)


def feature_error(found: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Mean squared difference of features [N, C] and [N, D] in their common channels, at the points ``where`` [N]."""
    common = min(found.shape[1], wanted.shape[1])
    return (where[:, None] * (found[:, :common] - wanted[:, :common]).square()).mean()


def grid_points(bound: float, resolution: int) -> Tensor:
    """[R, R, R, 3] points from -bound to bound, indexed z, y, x: the order of a dense hash level's rows."""
    axis = torch.linspace(-bound, bound, resolution)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], -1)
