"""Geometry ``splats``: a set of anisotropic Gaussians with colours in spherical harmonics (Kerbl et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.contracts import Context, Geometry, Scene, Step
from core.errors import UserError
from core.spherical_harmonics import DEGREE_MAX
from core.types import Mesh, Points, Splats, SplatStatistics
from plugins.splats import growth, initial
from plugins.splats.fusion import SeenSplats
from plugins.splats.growth import GrowthConfig
from plugins.splats.ply_format import read_ply
from plugins.splats.start import surface_points

if TYPE_CHECKING:
    from core.optim import ScheduledOptimizer

_ROWS = ("means", "log_scales", "quaternions", "logits", "colors", "harmonics", "gradient", "views", "radius")
_LOGIT_MAX = 12.0


class SplatSet(Geometry):
    """Means, logarithms of scales, quaternions, logits of opacities, and harmonics: one row per Gaussian.

    The set may change its number of rows between steps (``growth``); a checkpoint of any number loads. Colours are the
    Gaussians' own: renderers of splats ask no material, and ``features`` are the logits of the colour, which the
    material ``plain`` turns back into it.
    """

    class Config(BaseConfig):
        count: int = Field(2000, ge=1, le=5_000_000)
        """Gaussians at the start."""
        radius: float = Field(0.5, gt=0)
        """Radius of the ball in which they start, world units."""
        file: Path | None = None
        """A PLY file to start from: splats as viewers know them, or a cloud of points."""
        size: float = Field(0.8, gt=0)
        """Deviation at the start, as a share of the distance to the nearest neighbours."""
        opacity: float = Field(0.2, gt=0, lt=1)
        """Opacity at the start."""
        degree: int = Field(0, ge=0, le=DEGREE_MAX)
        """Highest degree of the spherical harmonics; 0 looks the same from everywhere."""
        degree_every: int = Field(0, ge=0)
        """Steps after which the next degree joins in; 0 uses all from the start."""
        position_lr: float = Field(0.3, gt=0)
        """Learning rate of the means as a share of the stage's."""
        scale_lr: float = Field(1.0, gt=0)
        """Learning rate of the logarithms of the scales."""
        rotation_lr: float = Field(1.0, gt=0)
        """Learning rate of the quaternions."""
        opacity_lr: float = Field(4.0, gt=0)
        """Learning rate of the opacities' logits."""
        color_lr: float = Field(1.0, gt=0)
        """Learning rate of the constant harmonic."""
        harmonics_lr: float = Field(0.05, gt=0)
        """Learning rate of the higher harmonics."""
        growth: GrowthConfig = GrowthConfig()
        """When and where the set grows and shrinks."""

    means: nn.Parameter
    log_scales: nn.Parameter
    quaternions: nn.Parameter
    logits: nn.Parameter
    colors: nn.Parameter
    harmonics: nn.Parameter
    gradient: Tensor
    views: Tensor
    radius: Tensor
    active: Tensor

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._seen: tuple[Any, SeenSplats] | None = None
        start = 0 if options.degree_every else options.degree
        self.register_buffer("active", torch.tensor(start))
        generator = context.generator("splats")
        if options.file is None:
            self._take(initial.random_ball(options.count, options.radius, generator))
        else:
            self._take(read_ply(options.file))

    def _take(self, given: Splats | Points) -> None:
        """Become this set."""
        o = self.options
        if not len(given.means if isinstance(given, Splats) else given.positions):
            raise UserError("geometry 'splats' has nothing to start from: the set of Gaussians or points is empty")
        if isinstance(given, Points):
            given = initial.splats_of(given, o.opacity, o.size, o.degree)
        sh = initial.with_degree(given.sh.detach().float(), o.degree)
        logits = torch.logit(given.opacities.detach().double().clamp(1e-6, 1 - 1e-6)).float()
        self._put({
            "means": given.means, "log_scales": given.scales.clamp(min=1e-7).log(), "quaternions": given.rotations,
            "logits": logits.clamp(-_LOGIT_MAX, _LOGIT_MAX), "colors": sh[:, :1], "harmonics": sh[:, 1:],
        })  # fmt: skip

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            kept = value.detach().float().to(self.active.device).clone().contiguous()
            # Harmonics of degree 0 have no numbers, and an optimiser no use for them.
            setattr(self, name, nn.Parameter(kept, requires_grad=kept[:1].numel() > 0))
        self._forget()

    def _forget(self) -> None:
        """Statistics of a set that has just changed."""
        for name in ("gradient", "views", "radius"):
            self.register_buffer(name, torch.zeros(len(self.means), device=self.active.device))

    def param_groups(self) -> list[dict[str, Any]]:
        o = self.options
        shares = {
            "means": o.position_lr, "log_scales": o.scale_lr, "quaternions": o.rotation_lr, "logits": o.opacity_lr,
            "colors": o.color_lr, "harmonics": o.harmonics_lr,
        }  # fmt: skip
        groups = [{"params": [getattr(self, name)], "lr_scale": share} for name, share in shares.items()]
        return [g for g in groups if g["params"][0].requires_grad]

    def splats(self) -> Splats:
        degree = int(self.active)
        sh: Tensor = self.colors
        if degree:
            sh = torch.cat([sh, self.harmonics[:, : (degree + 1) ** 2 - 1]], 1)
        statistics = None
        if self.training and torch.is_grad_enabled() and self.options.growth.every:
            statistics = SplatStatistics(self.gradient, self.views, self.radius)
        return Splats(
            self.means, self.log_scales.exp(), torch.nn.functional.normalize(self.quaternions, dim=-1),
            torch.sigmoid(self.logits), sh, statistics,
        )  # fmt: skip

    @torch.no_grad()
    def update(self, step: Step) -> None:
        o = self.options
        if o.degree_every:
            self.active.fill_(min(o.degree, step.index // o.degree_every))

    @torch.no_grad()
    def adapt(self, step: Step, optimizer: ScheduledOptimizer) -> None:
        """Grow, prune and reset opacities when it is time.

        Raises:
            UserError: no Gaussian is left, or some are not finite.
        """
        self._check(step)
        options = self.options.growth
        if options.due(step, options.every):
            self._grow(step, optimizer)
        if options.due(step, options.reset_every):
            logit = float(torch.logit(torch.tensor(options.reset_to)))
            none = torch.full((len(self.means),), -1, device=self.means.device)
            self.logits = optimizer.resize(self.logits, self.logits.clamp(max=logit), none)

    def _grow(self, step: Step, optimizer: ScheduledOptimizer) -> None:
        gradient = growth.over_processes(self.gradient) / growth.over_processes(self.views).clamp(min=1)
        radius = growth.over_processes(self.radius, largest=True)
        scales, opacities = self.log_scales.exp(), torch.sigmoid(self.logits)
        change = growth.plan(self.options.growth, gradient, radius, scales, opacities)
        if not len(change.source):
            raise UserError(
                f"step {step.index}: geometry 'splats' is empty, every one of its {len(scales)} Gaussians was too "
                f"faint (growth.faint) or too large (growth.largest)"
            )
        values = {name: p.data for name, p in self._parameters.items() if p is not None}
        grown = growth.grown(change, values, step.generator("splats-growth"))
        rows = torch.where(change.fresh, -1, change.source)
        for name, value in grown.items():
            old = getattr(self, name)
            trained = old.requires_grad
            setattr(self, name, optimizer.resize(old, value, rows) if trained else nn.Parameter(value, False))
        self._forget()

    def _check(self, step: Step) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None and not bool(torch.isfinite(parameter).all()):
                raise UserError(
                    f"step {step.index}: geometry 'splats' has {name} that are not finite; a smaller learning rate or "
                    f"gradient_clip keeps them so"
                )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the number of rows that the state has."""
        found = {name: state_dict[prefix + name] for name in _ROWS if prefix + name in state_dict}
        rows = {len(value) for value in found.values()}
        if len(rows) == 1 and found["means"].shape[1:] == (3,) and rows != {len(self.means)}:
            (count,) = rows
            self._put({n: p.new_zeros(count, *p.shape[1:]) for n, p in self._parameters.items() if p is not None})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def seen(self) -> SeenSplats:
        """Pictures of the set from all sides, made again when it has changed."""
        key = [(id(p), p._version) for p in self.parameters()] + [int(self.active)]
        if self._seen is None or self._seen[0] != key:
            with torch.no_grad():
                self._seen = (key, SeenSplats(self.splats(), self.context.bound))
        return self._seen[1]

    @torch.no_grad()
    def mesh(self, resolution: int) -> Mesh:
        """The surface that pictures from all sides show, with a colour per vertex; empty where they show none."""
        return self.seen().mesh(resolution)

    @torch.no_grad()
    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        """[N, 3] logits of the colour that pictures show at surface points [N, 3]."""
        return torch.logit(self.seen().colors(points).clamp(1e-4, 1 - 1e-4))

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Become another set, or ``count`` Gaussians on another geometry's surface, in its mesh's own colours."""
        self._start(other, None)

    def start_from(self, scene: Scene) -> None:
        """As :meth:`init_from`, in the colours that the scene's material gives."""
        self._start(scene.geometry, scene)

    def _start(self, other: Geometry, scene: Scene | None) -> None:
        if isinstance(other, SplatSet):
            self._take(other.splats())
            return
        self._take(surface_points(other, scene, self.options.count, self.context))

    def extra_repr(self) -> str:
        return f"{len(self.means)} Gaussians, degree {self.options.degree}"
