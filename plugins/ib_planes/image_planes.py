"""Geometry ``image-planes``: density and colour of a point from the features where it appears in several cameras.

The scene of Anciukevičius et al. 2024, "Denoising Diffusion via Image-Based Rendering": feature maps in image space,
one per camera (IB-planes). How depth enters and cameras are pooled is our choice: the depth along each camera is
encoded beside the feature, and the maximum is taken over the cameras that see the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Context, Geometry
from core.fields import fit_field, init_linear
from core.types import Cameras


def polynomial(z: Tensor) -> Tensor:
    """z, z^2, z^3."""
    return torch.stack([z, z**2, z**3], -1)


def sinusoids(z: Tensor) -> Tensor:
    """z, and sines and cosines of one and two half turns over z in [-1, 1]."""
    waves = [f(k * math.pi / 2 * z) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
    return torch.stack([z, *waves], -1)


_ALONG = 1e-4  # how much a depth of ``middle`` weighs beside nearness to an axis: it decides for one camera only

ENCODINGS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "polynomial": (polynomial, 3),
    "sinusoids": (sinusoids, 7),
}
"""By name: numbers [..., E] of normalised depths [...], and E."""


class ImagePlanes(Geometry):
    """Planes [V, C, S, S], the cameras they belong to, and a network from fetched features to density and colour.

    Nothing but positions relative to the cameras enters, so moving all cameras moves the scene with them. A point that
    no kept camera sees is empty, and so is one outside the ball round the point that the cameras look at.

    ``keep`` tells which planes count, [V]; or for each point of a call, [N, V].
    """

    c2w: Tensor
    fov: Tensor
    keep: Tensor

    class Config(BaseConfig):
        views: int = Field(4, ge=1)
        """How many planes."""
        channels: int = Field(24, ge=1)
        """Features of a plane."""
        size: int = Field(32, ge=2)
        """Their height and width."""
        hidden: int = Field(48, ge=1)
        """Width of the network from features to density and colour."""
        depth: Literal["polynomial", "sinusoids"] = "sinusoids"
        """How the depth of a point along a camera is encoded beside the feature."""
        middle: float = Field(3.0, gt=0)
        """The depth in world units that is encoded as 0; one unit before and behind are -1 and 1."""
        radius: float = Field(1.0, gt=0)
        """Farther than this from the point that the cameras look at all is empty, world units."""
        scale: float = Field(25.0, gt=0)
        """Multiplies the density."""
        fog: float = -3.0
        """Added to the raw density."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        o = options
        self.encode, numbers = ENCODINGS[o.depth]
        noise = context.generator("image-planes")
        self.planes = nn.Parameter(0.1 * torch.randn(o.views, o.channels, o.size, o.size, generator=noise))
        around = Cameras.turntable(torch.arange(o.views) * (2 * math.pi / o.views), 0.3, o.size)
        self.register_buffer("c2w", around.c2w)
        self.register_buffer("fov", around.fov_y)
        self.register_buffer("keep", torch.ones(o.views, dtype=torch.bool))
        self.fetch = nn.Sequential(
            nn.Linear(o.channels + numbers, o.hidden), nn.SiLU(), nn.Linear(o.hidden, o.hidden)
        )  # fmt: skip
        self.answer = nn.Sequential(nn.SiLU(), nn.Linear(o.hidden, o.hidden), nn.SiLU(), nn.Linear(o.hidden, 4))
        for layer in (*self.fetch, *self.answer):
            if isinstance(layer, nn.Linear):
                init_linear(layer, noise)

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Planes of the same sizes are taken over with their cameras; any other field is fitted."""
        if isinstance(other, ImagePlanes) and other.options == self.options:
            self.load_state_dict(other.state_dict())
        else:
            fit_field(self, other, "image-planes-start", step=step)

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raw, seen = self._raw(points)
        return {"density": seen * self.options.scale * F.softplus(raw[:, 0] + self.options.fog), "features": raw[:, 1:]}

    def center(self) -> Tensor:
        """[3] the point that the cameras look at."""
        return looked_at(self.c2w, self.options.middle)

    def _raw(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 4] raw density and features, and whether [N] any kept camera sees the point."""
        plane, point, at, depth = self._pairs(points)
        found = fetched(self.planes, plane, at)
        near = self.encode((depth - self.options.middle).clamp(-2, 2))
        told = self.fetch(torch.cat([found, near], -1))
        seen = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        seen[point] = True
        pooled = told.new_full((len(points), told.shape[-1]), -torch.inf)
        pooled = pooled.scatter_reduce(0, point[:, None].expand_as(told), told, "amax")
        return self.answer(torch.where(seen[:, None], pooled, 0.0)), seen

    def _pairs(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which kept camera sees which point: indices [P] of the cameras, of the points, where the points appear
        [P, 2], the picture's sides at -1 and 1, and their depths [P]."""
        side, keep = self.planes.shape[-1], self.keep.expand(len(points), -1).T
        pixels, depth = Cameras(self.c2w, self.fov, side, side).project(points)
        at = pixels * (2 / side) - 1  # [V, N, 2]
        inside = (points - self.center()).square().sum(-1) <= self.options.radius**2
        plane, point = ((at.abs() <= 1).all(-1) & (depth > 1e-3) & keep & inside).nonzero(as_tuple=True)
        return plane, point, at[plane, point], depth[plane, point]


def fetched(planes: Tensor, plane: Tensor, at: Tensor) -> Tensor:
    """[P, C] bilinear values of planes [V, C, S, S] by their numbers [P] at places [P, 2] in [-1, 1] (x, y from the
    upper left; pixels' centres lie half a pixel inside, and beyond the outermost their values go on)."""
    channels, side = planes.shape[1], planes.shape[-1]
    place = ((at + 1) * (side / 2) - 0.5).clamp(0, side - 1)
    low = place.detach().floor().clamp(max=side - 2)
    (x, y), corner = (place - low).unbind(-1), low.long()
    first = (plane * side + corner[:, 1]) * side + corner[:, 0]
    index = first[:, None] + torch.tensor([0, 1, side, side + 1], device=at.device)
    share = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], -1)
    table = planes.movedim(1, -1).reshape(-1, channels).to(share)
    return F.embedding_bag(index, table, per_sample_weights=share, mode="sum")


def looked_at(c2w: Tensor, middle: float) -> Tensor:
    """[3] the point nearest to the axes of cameras [V, 4, 4], least squares; on a single axis, at depth ``middle``."""
    eyes, axes = c2w[:, :3, 3].double(), -c2w[:, :3, 2].double()
    across = torch.eye(3, device=c2w.device, dtype=torch.float64) - (1 - _ALONG) * axes[:, :, None] * axes[:, None]
    wanted = (across @ eyes[..., None])[..., 0] + _ALONG * middle * axes
    return torch.linalg.solve(across.sum(0), wanted.sum(0)).to(c2w)
