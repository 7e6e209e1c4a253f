"""Geometry ``point-latent``: a shape that a fitted lion decodes from latents, and the latents are what is optimised.

Guidance moves what is rendered, and with it the latents, within what the decoder knows of shapes; the loss
``latent-prior`` draws them towards where both priors expect them, at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.contracts import Context, Geometry, Step
from core.errors import UserError
from core.generative.drawing import ask
from core.meshing.sampling import nearest_colors, sample_surface
from core.meshing.takeover import surface_of as surface_of_geometry
from core.spherical_harmonics import Y0
from core.types import Mesh, Points, Render, Splats
from plugins.lion.fitted import fitted
from plugins.lion.lion import Lion
from plugins.lion.options import SurfaceConfig
from plugins.lion.sampling import Latents, told_model
from plugins.lion.surface import surface_of

if TYPE_CHECKING:
    from plugins.lion.vae import Decoded

_TAKEN = 96
"""Grid points along a side, where another geometry's field is taken over."""


class PointLatent(Geometry):
    """Latents ``z`` and ``h`` of one shape, and the colour, opacity and size of each of its points.

    As Gaussians it is its points, as a mesh the closed surface round them (differentiable in the latents, too). The
    decoder stays as its run left it, and stays out of checkpoints.
    """

    class Config(BaseConfig):
        run: Path
        """The folder of a run that fitted a lion."""
        prompt: str = ""
        """What its first shape is a sample of; "" is anything."""
        seed: int = Field(default=0, ge=0)
        """Which sample."""
        size: float = Field(default=0.05, gt=0)
        """Deviation of the points as Gaussians at the start, world units."""
        opacity: float = Field(default=0.8, gt=0, lt=1)
        """Their opacity at the start."""
        latent_lr: float = Field(default=0.3, gt=0)
        """Learning rate of the latents as a share of the stage's."""
        surface: SurfaceConfig = SurfaceConfig(resolution=48, draws=1)
        """How points become a surface."""
        low: float = Field(default=0.02, gt=0, le=1)
        """Least time that latents are noised to by the loss `latent-prior`."""
        high: float = Field(default=0.5, gt=0, le=1)
        """Largest time."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        if options.low > options.high:
            raise UserError(f"geometry.low is {options.low:g}, above geometry.high, {options.high:g}")
        lion = fitted(options.run, context, "geometry.run")
        self._lion = [lion]  # in a list: its weights are the run's files, not this scene's
        random = torch.Generator().manual_seed(options.seed)
        told = lion.conditions.of_asked(ask(options.prompt), 1, random)
        self._told = None if told is None else told.to(lion.device)
        with torch.no_grad():
            start = lion.noise(1, random) if "restored" in context.parts else lion.latents(1, told, random)
        count = start.h.shape[1]
        self.z = nn.Parameter(start.z.clone(), requires_grad=lion.options.hierarchical)
        self.h = nn.Parameter(start.h.clone())
        self.colors = nn.Parameter(0.1 * torch.randn(count, 3, generator=context.generator("point-latent")))
        self.logits = nn.Parameter(torch.full((count,), options.opacity).logit())
        self.log_sizes = nn.Parameter(torch.full((count,), options.size).log())

    @property
    def lion(self) -> Lion:
        """The fitted networks."""
        return self._lion[0]

    def param_groups(self) -> list[dict[str, Any]]:
        latents = [p for p in (self.z, self.h) if p.requires_grad]
        own = [self.colors, self.logits, self.log_sizes]
        return [{"params": latents, "lr_scale": self.options.latent_lr}, {"params": own}]

    def cloud(self) -> Points:
        """World points and, where the decoder gives them, normals; differentiable in the latents."""
        made: Decoded = self.lion.decode(Latents(self.z, self.h))
        return Points(made.points[0], None if made.normals is None else made.normals[0])

    def splats(self) -> Splats:
        points = self.cloud().positions
        turn = points.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(len(points), 4)
        sh = ((torch.sigmoid(self.colors) - 0.5) / Y0)[:, None]
        return Splats(points, self.log_sizes.exp()[:, None].expand(-1, 3), turn, torch.sigmoid(self.logits), sh)

    def surface(self) -> Mesh:
        return self._surface(self.options.surface.resolution)

    @torch.no_grad()
    def mesh(self, resolution: int) -> Mesh:
        """The closed surface of the points, by a solver of ``resolution`` cells at most; exporters paint it."""
        return self._surface(min(resolution, self.options.surface.resolution))

    def _surface(self, resolution: int) -> Mesh:
        points = self.cloud()
        return surface_of(points, self.context.bound, resolution, self.options.surface.sigma)

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        """[N, 3] logits of the nearest point's colour at points [N, 3]."""
        with torch.no_grad():
            near = torch.cdist(points.float(), self.cloud().positions).argmin(1)
        return self.colors[near]

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        """``latent-score``: a scalar whose gradient in the latents is the priors' score distillation."""
        if signal != "latent-score":
            return super().extra(signal, render, step)
        lion, o, random = self.lion, self.options, step.generator("latent-prior")
        if not lion.has_prior:
            raise UserError(f"the loss latent-prior needs priors, and {o.run} has fitted the autoencoder alone so far")
        level = o.low + (o.high - o.low) * torch.rand(1, generator=random)
        pairs = [("points", self.h, (self.z.detach(),))]
        if lion.options.hierarchical:
            pairs.append(("shape", self.z, ()))  # type: ignore[arg-type]
        total = self.h.new_zeros(())
        for name, x, before in pairs:
            noise, t = torch.randn(x.shape, generator=random).to(x), level.to(x)
            with torch.no_grad():
                scale = lion.options.sampling.guidance
                model = told_model(lion.average.model[name], scale, self._told, *before)
                away = model(lion.sde.add_noise(x, noise, t), t) - noise
                weight = lion.sde.variance(t)
            total = total + (weight * away * x).sum() / x.numel()
        return total

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Become the latents of another geometry's surface, in the colours of its mesh where it has any.

        Raises:
            UserError: it has no surface.
        """
        found = surface_of_geometry(other, _TAKEN, 20_000)
        mesh = Mesh(torch.from_numpy(found.vertices.copy()), torch.from_numpy(found.faces.copy()))
        random = self.context.generator("point-latent-start")
        points = sample_surface(mesh, self.h.shape[1], random).positions[None]
        latents = self.lion.encode(points, lambda shape: torch.randn(shape, generator=random))
        with torch.no_grad():
            self.z.copy_(latents.z)
            self.h.copy_(latents.h)
            source = None if found.source is None else nearest_colors(points[0], found.source)
            if source is not None:
                self.colors.copy_(source.clamp(0.01, 0.99).logit())


def latent_prior(render: Render, step: Step) -> Tensor:
    """Draws latents towards what the 3D priors expect: score distillation in their own space (Poole et al. 2022, eq. 3,
    with the weight s_t^2)."""
    return render.extras["latent-score"]
