"""The smallest real scene and prior, against which components of other kinds are checked.

All have closed forms: a ball, a plain material, a plain background, a ray marcher with fixed samples, and the exact
denoiser of a Gaussian over images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.contracts import Background, Context, Geometry, Material, Prior, PromptProcessor, Renderer, Scene, Step
from core.diffusion.process import DiffusionProcess, FlowProcess, Parametrization
from core.lift import Asked
from core.spherical_harmonics import Y0
from core.types import Cameras, Condition, Mesh, Render, Splats, Views


class Ball(Geometry):
    """A ball of radius 0.5 with a soft edge, red in front (+x) and green behind."""

    def __init__(self, options: object = None, context: Context | None = None) -> None:
        super().__init__(options, context or Context())
        self.radius = nn.Parameter(torch.tensor(0.5))

    def sdf(self, points: Tensor) -> Tensor:
        """[N] exact distance."""
        return points.norm(dim=-1) - self.radius

    def field(self, points: Tensor) -> dict[str, Tensor]:
        """Density 40 inside, falling to 0 over a twentieth of a unit."""
        front = 2.0 * points[:, :1]
        density = 40.0 * torch.sigmoid(-self.sdf(points) / 0.02)
        return {"density": density, "features": torch.cat([front, -front, torch.zeros_like(front)], -1)}

    def mesh(self, resolution: int) -> Mesh:
        """A subdivided octahedron, whatever the resolution."""
        vertices, faces = octasphere(2)
        return Mesh(vertices * self.radius.detach(), faces, colors=torch.full_like(vertices, 0.5))

    def surface(self) -> Mesh:
        """A subdivided octahedron that grows with the radius."""
        vertices, faces = octasphere(2)
        return Mesh(vertices * self.radius, faces)

    def splats(self) -> Splats:
        """258 round Gaussians on the surface, in the field's colours."""
        vertices, _ = octasphere(3)
        count = len(vertices)
        means = vertices * self.radius
        front = torch.sigmoid(2.0 * means[:, :1])
        colors = torch.cat([front, 1 - front, torch.full_like(front, 0.5)], -1)
        turn = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4)
        sh = ((colors - 0.5) / Y0)[:, None]
        return Splats(means, 0.12 * self.radius.expand(count, 3), turn, torch.full((count,), 0.9), sh)


def octasphere(levels: int) -> tuple[Tensor, Tensor]:
    """Unit vertices [V, 3] and outward faces [F, 3] of an octahedron split ``levels`` times."""
    axes = torch.eye(3)
    vertices = [*axes, *-axes]
    faces = [(0, 1, 2), (1, 3, 2), (3, 4, 2), (4, 0, 2), (1, 0, 5), (3, 1, 5), (4, 3, 5), (0, 4, 5)]
    for _ in range(levels):
        middle: dict[tuple[int, int], int] = {}
        finer: list[tuple[int, int, int]] = []
        for a, b, c in faces:
            ab, bc, ca = (_middle(vertices, middle, i, j) for i, j in ((a, b), (b, c), (c, a)))
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = finer
    return torch.stack(vertices), torch.tensor(faces)


def _middle(vertices: list[Tensor], known: dict[tuple[int, int], int], a: int, b: int) -> int:
    key = (min(a, b), max(a, b))
    if key not in known:
        known[key] = len(vertices)
        vertices.append(nn.functional.normalize(vertices[a] + vertices[b], dim=0))
    return known[key]


class Paint(Material):
    """The first three features, through a sigmoid."""

    def forward(
        self,
        features: Tensor,
        points: Tensor,
        directions: Tensor,
        normals: Tensor | None,
        light: Tensor | None = None,
    ) -> Tensor:
        """[N, 3]."""
        return torch.sigmoid(features[:, :3])


class Grey(Background):
    """Grey everywhere."""

    def forward(self, directions: Tensor) -> Tensor:
        """[..., 3]."""
        return torch.full_like(directions, 0.5)


class Marcher(Renderer):
    """Emission and absorption at 48 fixed samples per ray (Max 1995)."""

    samples = 48

    def forward(self, cameras: Cameras, step: Step | None = None) -> Render:
        """Samples between the near and far side of the unit ball, seen from each camera."""
        geometry, material = self.context.parts["geometry"], self.context.parts["material"]
        origins, directions = cameras.rays()
        middle = cameras.distance[:, None, None, None]
        z = middle + torch.linspace(-1, 1, self.samples, dtype=origins.dtype)
        points = origins[..., None, :] + directions[..., None, :] * z[..., None]
        flat = points.reshape(-1, 3)
        field = geometry.field(flat)
        colour = material(field["features"], flat, directions[..., None, :].expand_as(points).reshape(-1, 3), None)
        alpha = 1 - torch.exp(-field["density"].view(z.expand(points.shape[:-1]).shape) * (2 / self.samples))
        light = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha], -1), -1)
        weights = alpha * light[..., :-1]
        opacity = weights.sum(-1, keepdim=True)
        seen = (weights[..., None] * colour.view(points.shape)).sum(-2)
        rgb = seen + (1 - opacity) * self.context.parts["background"](directions)
        depth = (weights * z).sum(-1, keepdim=True)
        return Render(rgb.clamp(0, 1), opacity.clamp(0, 1), cameras, depth=depth)


class GaussianPrior(Prior):
    """The exact diffusion model of images ``N(mean(text), 0.1^2)``: one colour per text, grey for the empty one.

    With ``x_t = a x_0 + s eps`` the posterior mean is ``m + a v / (a^2 v + s^2) (x_t - a m)``. A parameter that adds
    nothing (``gain`` is 0) is there to show whether a score sends gradients into the prior.
    """

    guidance_scale = 1.0
    variance = 0.01

    def __init__(
        self,
        options: object = None,
        context: Context | None = None,
        parametrization: Parametrization = "epsilon",
    ) -> None:
        super().__init__(options, context or Context())
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        bar = torch.cumprod(1 - betas, 0)
        self.process = FlowProcess() if parametrization == "flow" else DiffusionProcess(bar, parametrization)
        self.gain = nn.Parameter(torch.zeros(()))

    @classmethod
    def space(cls, options: object, context: Context) -> tuple[int, int, int]:
        """(3, 16, 16)."""
        return 3, 16, 16

    def encode(self, rgb: Tensor) -> Tensor:
        """[B, 3, 16, 16] in [-1, 1]."""
        return nn.functional.adaptive_avg_pool2d(rgb.movedim(-1, 1), 16) * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        """[B, 16, 16, 3]."""
        return (latents.movedim(1, -1) / 2 + 0.5).clamp(0, 1)

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        """The mean colour in [-1, 1] as ``pooled`` [B, 3], drawn from the text; zeros for ``""``."""
        rows = [
            torch.zeros(3) if not t else torch.tensor([math.sin(sum(t.encode()) * k) for k in (1, 2, 3)]) for t in texts
        ]
        means = torch.stack(rows)
        text = means[:, None, :].expand(-1, 4, -1).contiguous()
        camera = None if cameras is None else cameras.c2w.flatten(1)
        return Condition(text=text, pooled=means, camera=camera)

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The posterior mean, in the process's parametrisation."""
        assert condition.pooled is not None
        a, s = self.process.scales(t, noisy)
        mean = condition.pooled.to(noisy)[:, :, None, None]
        x0 = mean + a * self.variance / (a**2 * self.variance + s**2) * (noisy - a * mean)
        return self.process.target(x0, (noisy - a * x0) / s, t) + self.gain * noisy


def cameras(size: int = 24, count: int = 3) -> Cameras:
    """Views from the front round the object, slightly above."""
    azimuth = torch.arange(count) * (2 * math.pi / count)
    full = torch.ones(count)
    return Cameras.orbit(azimuth, 0.3 * full, 3.0 * full, 0.8 * full, size, size)


def scene(context: Context | None = None) -> Scene:
    """The parts above, put together; also as ``context.parts``."""
    context = context or Context()
    parts = context.parts
    parts["geometry"], parts["material"], parts["background"] = (
        Ball(None, context),
        Paint(None, context),
        Grey(None, context),
    )
    parts["renderer"] = Marcher(None, context)
    return Scene(
        parts["geometry"], parts["material"], parts["background"], parts["renderer"], "ball", "a red and green ball"
    )


class SameText(PromptProcessor):
    """Every view hears the sentence as it stands."""

    def texts(self, prompt: str, cameras: Cameras) -> list[str]:
        return [prompt] * len(cameras)


def asked(context: Context) -> Asked:
    """A job's sentence, as ``context.parts["asked"]``."""
    return Asked("a red and green ball", "", SameText(None, context))
