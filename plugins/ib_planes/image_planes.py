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


ENCODINGS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "polynomial": (polynomial, 3),
    "sinusoids": (sinusoids, 7),
}
"""By name: numbers [..., E] of normalised depths [...], and E."""


class ImagePlanes(Geometry):
    """Planes [V, C, S, S], the cameras they belong to, and a network from fetched features to density and colour.

    Nothing but positions relative to the cameras enters, so moving all cameras moves the scene with them. A point that
    no kept camera sees is empty.
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

    def _raw(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 4] raw density and features, and whether [N] any kept camera sees the point."""
        kept = self.keep.nonzero()[:, 0]
        planes, side = self.planes[kept], self.planes.shape[-1]
        pixels, depth = Cameras(self.c2w[kept], self.fov[kept], side, side).project(points)
        at = pixels * (2 / side) - 1  # [K, N, 2]
        sees = (at.abs() <= 1).all(-1) & (depth > 1e-3)
        found = F.grid_sample(planes, at[:, :, None].clamp(-2, 2), padding_mode="border", align_corners=False)[..., 0]
        near = self.encode((depth - self.options.middle).clamp(-2, 2))
        told = self.fetch(torch.cat([found.transpose(1, 2), near], -1)).masked_fill(~sees[..., None], -torch.inf)
        seen = sees.any(0)
        pooled = (
            torch.where(seen[:, None], told.amax(0), 0.0)
            if len(kept)
            else points.new_zeros(len(points), told.shape[-1])
        )
        return self.answer(pooled), seen
