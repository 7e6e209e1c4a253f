"""What renderers of fields along rays share: shading and compositing of samples, whoever placed them.

Emission and absorption (Mildenhall et al. 2020, eq. 3).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from core.config.base import Config as BaseConfig
from core.contracts import Context, Renderer, Step
from core.kernels.compositing import composite
from core.kernels.marching import RaySamples
from core.meshing.surface import overrides
from core.types import Cameras, Render

FEWEST_RAYS = 256


class RayRenderer(Renderer):
    """Colour, opacity, mean depth, and normals from the density's gradient where something asks for them.

    Attributes:
        step_size: world units over which a density is told to rise, for normals of pictures.
    """

    step_size: float

    class Config(BaseConfig):
        normals: bool = False
        """Compute normals while training too (losses on normals need them); pictures always have them."""
        rays: int = Field(16384, ge=256)
        """Rays rendered at once outside training; bounds memory."""
        training_rays: int = Field(0, ge=0)
        """Rays rendered at once while training; 0: all. Where there are more they are rendered again for their
        gradients, which takes a third longer and bounds memory."""

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        """Normals while training only with ``normals``: losses on them would find none otherwise."""
        gives = ["rgb", "opacity", "depth", "weights", *(["normal"] if options.normals else [])]
        return ["density", "features"], gives

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.most, self._last = options.training_rays, 0

    def lighten(self) -> str | None:
        """Half as many rays at once while training, 256 at least."""
        rays = min(self.most or self._last, self._last) // 2
        if rays < FEWEST_RAYS:
            return None
        self.most = rays
        return f"{rays} rays at once (renderer.training_rays)"

    @abstractmethod
    def _rays(self, origins: Tensor, directions: Tensor, jitter: Tensor | None, normals: bool) -> dict[str, Tensor]:
        """:meth:`_shade` of samples along rays [N, 3], [N, 3]; ``jitter`` [N] in [0, 1) while training."""

    def _part(self, kind: str) -> Any:
        # Looked up, not kept as an attribute: a renderer does not own the geometry's parameters.
        return self.context.parts[kind]

    def forward(self, cameras: Cameras, step: Step | None = None) -> Render:
        origins, directions = (x.reshape(-1, 3) for x in cameras.rays())
        if step is not None:
            jitter = torch.rand(len(origins), generator=step.generator("jitter")).to(origins)
            parts = self._training(origins, directions, jitter)
        else:
            chunks = zip(origins.split(self.options.rays), directions.split(self.options.rays), strict=True)
            parts = [self._picture(o, d) for o, d in chunks]
        shape = (len(cameras), cameras.height, cameras.width)
        seen = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
        return self._assemble(seen, cameras, directions.view(*shape, 3), shape, step is not None)

    def _training(self, origins: Tensor, directions: Tensor, jitter: Tensor) -> list[dict[str, Tensor]]:
        """All rays at once, or pieces of which nothing is kept but what they show."""
        normals, self._last = self.options.normals, len(origins)
        if not self.most or self._last <= self.most:
            return [self._rays(origins, directions, jitter, normals)]
        pieces = zip(*(x.split(self.most) for x in (origins, directions, jitter)), strict=True)
        return [checkpoint(self._rays, *piece, normals, use_reentrant=False) for piece in pieces]

    def _assemble(
        self, seen: dict[str, Tensor], cameras: Cameras, directions: Tensor, shape: Any, training: bool
    ) -> Render:
        opacity = seen["opacity"].view(*shape, 1).clamp(max=1.0)  # a sum of weights rounds to 1 + 2e-7
        behind = self._part("background")(directions)
        forward = -cameras.c2w[:, None, None, :3, 2]
        cosine = (directions * forward).sum(-1, keepdim=True)
        depth = seen["depth"].view(*shape, 1) / opacity.clamp(min=1e-6) * cosine
        extras: dict[str, Tensor] = {
            k: seen[k] for k in ("weights", "facing", "depth_variance", "interlevel") if k in seen
        }
        rgb = seen["rgb"].view(*shape, 3) + (1 - opacity) * behind
        if "latent" in seen:
            material = self._part("material")
            extras["latent"] = seen["latent"].view(*shape, -1) + (1 - opacity) * material.behind(behind)
            shown = None if training else material.picture(extras["latent"])
            rgb = rgb if shown is None else shown
        return Render(
            rgb=rgb,
            opacity=opacity,
            depth=torch.where(opacity > 0.05, depth, torch.zeros_like(depth)),
            normal=seen["normal"].view(*shape, 3) if "normal" in seen else None,
            cameras=cameras,
            extras=extras,
        )

    def _shade(self, samples: RaySamples, origins: Tensor, directions: Tensor, normals: bool) -> dict[str, Tensor]:
        """What each ray sees [N, ...], and what is known of each sample [M]."""
        points = samples.positions(origins, directions)
        views = directions[samples.ray_ids]
        geometry, material = self._part("geometry"), self._part("material")
        normals = normals or material.needs_normal
        density, features, normal = self._field(geometry, points, views, samples.t_ends - samples.t_starts, normals)
        values = {"rgb": material(features, points, views, normal, self._light(origins)[samples.ray_ids])}
        if normal is not None:
            values["normal"] = normal
        if material.latent:
            values["latent"] = material.latents(features)
        values["square"] = samples.mids[:, None].square()
        flat = torch.cat(list(values.values()), -1)
        out = composite(density, flat, samples.t_starts, samples.t_ends, samples.offsets)
        sums = out.values.split([v.shape[1] for v in values.values()], -1)
        seen = dict(zip(values, sums, strict=True))
        mean = out.depth / out.opacity.clamp(min=1e-6)
        seen["depth_variance"] = seen.pop("square")[:, 0] - out.depth * mean  # opacity times the variance of depth
        seen |= {"opacity": out.opacity, "depth": out.depth, "weights": out.weights}
        if normal is not None:
            seen["facing"] = (normal * views).sum(-1)
        return seen

    def _picture(self, origins: Tensor, directions: Tensor) -> dict[str, Tensor]:
        """Rays of a finished picture. Normals come from the one point that a ray shows, not from every sample: six
        densities a pixel instead of a gradient at each sample."""
        seen = self._rays(origins, directions, None, normals=False)
        if "normal" not in seen:
            hit = seen["opacity"].detach() > 0.05
            normal = torch.zeros_like(origins)
            opacity, depth = seen["opacity"].detach()[hit, None], seen["depth"].detach()[hit, None]
            normal[hit] = self._slope(origins[hit] + directions[hit] * depth / opacity) * opacity
            seen["normal"] = normal
        return seen

    @torch.no_grad()
    def _slope(self, points: Tensor) -> Tensor:
        """Unit normals [N, 3]: the geometry's own, else minus the density's central differences."""
        own = self._part("geometry").normals(points)
        if own is not None:
            return own
        reach = 0.5 * self.step_size
        offsets = reach * torch.eye(3, dtype=points.dtype, device=points.device)
        density = self._part("geometry").density
        sides = [density((points[:, None] + sign * offsets).view(-1, 3)).view(-1, 3) for sign in (1.0, -1.0)]
        return -F.normalize(sides[0] - sides[1], dim=-1, eps=1e-8)

    def _light(self, origins: Tensor) -> Tensor:
        """A point light a little above the camera (materials without shading ignore it)."""
        return origins + origins.new_tensor([0.0, 0.0, 0.5])

    def _field(
        self, geometry: Any, points: Tensor, views: Tensor, lengths: Tensor, normals: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Density [M], features [M, C] and, where asked, unit normals [M, 3]: the geometry's own, else minus the
        density's gradient."""
        if not normals or overrides(geometry, "normals"):
            found = geometry.along(points, views, lengths)
            return found["density"], found["features"], geometry.normals(points) if normals else None
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            found = geometry.along(points, views, lengths)
            if not found["density"].requires_grad:  # a geometry may look values up without a gradient in the points
                return found["density"], found["features"], self._slope(points.detach())
            (gradient,) = torch.autograd.grad(found["density"].sum(), points, create_graph=training)
        normal = -F.normalize(gradient, dim=-1, eps=1e-8)
        if training:
            return found["density"], found["features"], normal
        return found["density"].detach(), found["features"].detach(), normal.detach()
