"""Renderer ``splat-rasterizer``: Gaussians blended front to back, tile by tile.

Kerbl et al. 2023; Zwicker et al. 2001. Splats carry their own colours: the material is not asked.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Renderer, Step
from core.kernels.splatting.pictures import SplatPictures, draw
from core.spherical_harmonics import bounded
from core.types import Cameras, Render


class SplatRasterizer(Renderer):
    """Colour over the background, opacity, mean depth, and the normals of the Gaussians' shortest axes."""

    class Config(BaseConfig):
        kernel: Literal["auto", "reference", "numba", "gsplat"] = "auto"
        """Backend of the blending."""
        covered: float = Field(0.05, gt=0, lt=1)
        """Opacity from which on a pixel has a depth."""

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    def forward(self, cameras: Cameras, step: Step | None = None) -> Render:
        parts = self.context.parts
        splats = parts["geometry"].splats()
        if step is None:
            splats.statistics = None
        backend = None if self.options.kernel == "auto" else self.options.kernel
        seen: SplatPictures = draw(splats, cameras, backend)
        behind = parts["background"](cameras.rays()[1])
        depth = seen.depth / seen.opacity.clamp(min=1e-6)
        return Render(
            # Colours may exceed 1 while they learn; what leads back is let through.
            rgb=bounded(seen.rgb + (1 - seen.opacity) * behind, 0.0, 1.0),
            opacity=seen.opacity.clamp(0, 1),
            depth=torch.where(seen.opacity > self.options.covered, depth, torch.zeros_like(depth)),
            normal=seen.normal,
            cameras=cameras,
        )
