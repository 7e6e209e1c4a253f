"""Geometry ``sdf``: a signed distance and features from a hash-grid network, rendered as a volume.

The density of NeuS (Wang et al. 2021) or VolSDF (Yariv et al. 2021) lets a volume renderer see a surface; eikonal terms
(Gropp et al. 2020) keep it a distance; levels of the grid that come in over the run and normals from finite differences
as wide as the finest of them are Neuralangelo's (Li et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.schedule import Schedule
from core.contracts import Context, Geometry, Step
from core.errors import UserError
from core.fields import HashField, copies, feature_error, fit, grid_points
from core.kernels.hash_grid import hash_grid
from core.meshing.distance import banded_distance
from core.meshing.start import ellipsoid_distance, load_mesh, sphere_distance
from core.meshing.surface import overrides
from core.types import Mesh, Render


class SDF(HashField):
    """Distance [N] = start(x) + network; negative inside. Density is 0 outside the cube of half side ``context.bound``.

    The start is a grid of exact distances (buffer ``base``), so a sphere, an ellipsoid, a mesh file or an earlier
    stage's shape needs no fitting and is the same every time; the network adds nothing to it before the first step.
    """

    class Config(HashField.Config):
        density: Literal["volsdf", "neus"] = "volsdf"
        """How a distance becomes density: Laplace's cumulative distribution, or NeuS's logistic one along rays."""
        width: Schedule = Schedule([(0, 0.05), ("70%", 0.02)])
        """Width of the surface in world units: VolSDF's beta, NeuS's 1/s. Not far below half a marching step."""
        learn_width: bool = False
        """Let the optimiser find the width; ``width`` is then where it begins."""
        width_lr: float = Field(1.0, gt=0)
        """Learning rate of the width's logarithm as a share of the stage's."""
        start: Literal["sphere", "ellipsoid", "mesh"] = "sphere"
        """The first shape."""
        radius: float = Field(0.5, gt=0)
        """Of the sphere; of the ball that holds the mesh. World units."""
        radii: tuple[float, float, float] = (0.5, 0.4, 0.6)
        """Of the ellipsoid, along x (front), y and z (up)."""
        file: str = ""
        """The mesh file to start from."""
        base_cells: int = Field(64, ge=8, le=256)
        """Cells per side of the grid that holds the first shape."""
        gain: float = Field(0.3, gt=0)
        """Multiplies the network's output before it is added to the distance; more lets shapes change faster."""
        normals: Literal["analytic", "finite-difference"] = "analytic"
        """Slopes from the network's gradient, or from differences across a cell of the finest level that takes part."""
        eikonal_points: int = Field(2048, ge=2)
        """Points of a step at which the eikonal loss looks: half anywhere, half near what is seen."""

        @field_validator("width")
        @classmethod
        def _positive(cls, value: Schedule) -> Schedule:
            if value.extent[0] <= 0:
                raise ValueError(f"expected widths above 0, found {value.extent[0]:g}")
            return value

        @field_validator("radii")
        @classmethod
        def _axes(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
            if min(value) <= 0:
                raise ValueError(f"expected three radii above 0, found {list(value)}")
            return value

    base: Tensor  # [1, (cells + 1)^3, 1]: a dense hash level
    annealed: Tensor  # [] the width, where it is not learned
    log_width: nn.Parameter

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context, "sdf")
        first = torch.tensor(options.width.at(0, 2))
        if options.learn_width:
            self.log_width = nn.Parameter(first.log())
        else:
            self.register_buffer("annealed", first)
        points = grid_points(context.bound, options.base_cells + 1).view(-1, 3)
        self.register_buffer("base", self._start(points).float().view(1, -1, 1))
        self._silence()

    def _start(self, points: Tensor) -> Tensor:
        o = self.options
        if o.start == "mesh":
            if not o.file:
                raise UserError("geometry.start is 'mesh', so geometry.file must name one")
            return self._to_mesh(points, load_mesh(o.file, o.radius))
        return ellipsoid_distance(points, o.radii) if o.start == "ellipsoid" else sphere_distance(points, o.radius)

    def _to_mesh(self, points: Tensor, mesh: Mesh) -> Tensor:
        return banded_distance(points, mesh, 4 * self.context.bound / self.options.base_cells)

    @torch.no_grad()
    def _silence(self) -> None:
        """The network adds nothing to the distance (features stay)."""
        self.second.weight[0] = 0
        self.second.bias[0] = 0

    def param_groups(self) -> list[dict[str, Any]]:
        groups = super().param_groups()
        width = {"params": [self.log_width], "lr_scale": self.options.width_lr} if self.options.learn_width else None
        return groups if width is None else [*groups, width]

    @property
    def width(self) -> Tensor:
        """[] the surface's width now, world units."""
        return self.log_width.exp().clamp(min=1e-4) if self.options.learn_width else self.annealed

    def update(self, step: Step) -> None:
        super().update(step)
        if not self.options.learn_width:
            self.annealed.fill_(self.options.width.at(step.index, step.total))

    def _distance(self, raw: Tensor, points: Tensor) -> Tensor:
        bound = self.context.bound
        backend = None if self.options.kernel == "auto" else self.options.kernel
        base = hash_grid((points / bound + 1) / 2, self.base, (self.options.base_cells,), backend=backend)[:, 0]
        beyond = (points - points.clamp(-bound, bound)).norm(dim=-1)  # the grid ends at the cube's sides
        return base + beyond + raw[:, 0] * self.options.gain

    def sdf(self, points: Tensor) -> Tensor:
        return self._distance(self.raw(points), points)

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raw = self.raw(points)
        distance = self._distance(raw, points)
        return {"density": self._density(distance, points), "features": raw[:, 1:], "sdf": distance}

    def density(self, points: Tensor) -> Tensor:
        return self._density(self.sdf(points), points)

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        return self.raw(points)[:, 1:]

    def _density(self, distance: Tensor, points: Tensor) -> Tensor:
        inside = (points.abs() <= self.context.bound).all(-1)
        return (laplace if self.options.density == "volsdf" else logistic)(distance, self.width) * inside

    def along(self, points: Tensor, directions: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """NeuS's opacity of a stretch follows from the distances at its two ends (Wang et al. 2021, eq. 13)."""
        found = self.field(points)
        if self.options.density == "neus":
            reach = 0.5 * lengths[:, None] * directions
            ends = self.sdf(torch.cat([points - reach, points + reach])).view(2, -1)
            inside = (points.abs() <= self.context.bound).all(-1)
            found["density"] = section(ends[0], ends[1], lengths, self.width) * inside
        return found

    def slope(self, points: Tensor) -> Tensor:
        """[N, 3] gradient of the distance at world points; differentiable in the parameters where gradients are on."""
        if self.options.normals == "finite-difference":
            return self._difference(points)
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.sdf(at).sum(), at, create_graph=training)
        return slope if training else slope.detach()

    def _difference(self, points: Tensor) -> Tensor:
        offsets = 0.5 * self.cell * torch.eye(3, dtype=points.dtype, device=points.device)
        sides = torch.cat([points[:, None] + offsets, points[:, None] - offsets]).view(-1, 3)
        ahead, back = self.sdf(sides).view(2, -1, 3)
        return (ahead - back) / self.cell

    def normals(self, points: Tensor) -> Tensor:
        return F.normalize(self.slope(points), dim=-1, eps=1e-8)

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        if signal != "sdf-gradient":
            return super().extra(signal, render, step)
        generator, count, bound = step.generator("eikonal"), self.options.eikonal_points // 2, self.context.bound
        anywhere = (torch.rand(count, 3, generator=generator) * 2 - 1) * bound
        near = self._seen(render)
        if len(near):
            chosen = near[torch.randint(len(near), (count,), generator=generator)]
            noise = torch.randn(count, 3, generator=generator) * 2 * float(self.width)
            anywhere = torch.cat([anywhere, (chosen + noise).clamp(-bound, bound)])
        return self.slope(anywhere.to(self.table.device))

    @staticmethod
    def _seen(render: Render) -> Tensor:
        """[M, 3] world points of the pixels that show something, on the CPU."""
        if render.depth is None:
            return torch.zeros(0, 3)
        origins, directions = render.cameras.rays()
        cosine = -(directions * render.cameras.c2w[:, None, None, :3, 2]).sum(-1, keepdim=True)
        depth = render.depth.detach()
        return (origins + directions * depth / cosine)[depth[..., 0] > 0].cpu()

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another shape as the new start, and its features by a fit near the surface.

        ``step`` is called with the index of each fitting step.
        """
        if copies(self, other, "gain", "density"):
            return
        bound, side = self.context.bound, self.options.base_cells + 1
        points = grid_points(bound, side).view(-1, 3).to(self.base.device)
        with torch.no_grad():
            if overrides(other, "sdf"):
                distance = torch.cat([other.sdf(part) for part in points.split(1 << 17)])
            else:
                mesh = other.mesh(2 * side)
                if not len(mesh.faces):
                    raise UserError("there is nothing to start from: the earlier stage's surface is empty")
                distance = self._to_mesh(points, mesh)
        self.base.copy_(distance.to(self.base).view_as(self.base))
        self._silence()
        if overrides(other, "field", "features"):
            self._take_features(other, step)

    def _take_features(self, other: Geometry, step: Callable[[int], None] | None) -> None:
        def error(points: Tensor) -> Tensor:
            with torch.no_grad():
                wanted, near = other.features(points), self.sdf(points).abs() < 0.1 * self.context.bound
            return feature_error(self.features(points), wanted, near)

        fit(self, error, "sdf-init", step=step)


def laplace(distance: Tensor, beta: Tensor) -> Tensor:
    """VolSDF's density [N]: 1/beta times the Laplace distribution of minus the distance (Yariv et al. 2021, eq. 2)."""
    tail = 0.5 * torch.exp(-distance.abs() / beta)
    return torch.where(distance > 0, tail, 1 - tail) / beta


def logistic(distance: Tensor, width: Tensor) -> Tensor:
    """NeuS's density [N] for a ray that meets the surface head-on: s (1 - Phi_s) with s = 1 / width (eq. 10)."""
    return torch.sigmoid(-distance / width) / width


def section(first: Tensor, last: Tensor, lengths: Tensor, width: Tensor) -> Tensor:
    """NeuS's mean density [N] of stretches whose ends lie at these distances: -log(1 - alpha) / length.

    alpha = max(0, 1 - Phi_s(last) / Phi_s(first)) (Wang et al. 2021, eq. 13), in logarithms.
    """
    gone = F.logsigmoid(first / width) - F.logsigmoid(last / width)
    return gone.clamp(min=0) / lengths
