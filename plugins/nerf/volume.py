"""Renderer ``volume``: emission and absorption along rays, skipping what an occupancy grid knows to be empty.

Mildenhall et al. 2020, eq. 3; the grid is Instant-NGP's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context, Step
from core.kernels.marching import RaySamples
from core.kernels.occupancy import OccupancyGrid
from plugins.nerf.rays import RayRenderer


class Volume(RayRenderer):
    """Samples a fixed step apart, where the grid of cells says that there may be something."""

    class Config(RayRenderer.Config):
        samples: int = Field(64, ge=4)
        """Steps across the scene's cube, side to side."""
        grid: int = Field(48, ge=8)
        """Cells per side of the occupancy grid."""
        threshold: float = Field(0.05, gt=0)
        """Opacity of one step below which a cell counts as empty."""
        update_every: int = Field(8, ge=1)
        """Steps between looks at the occupancy."""
        warmup: int = Field(24, ge=0)
        """Steps during which every cell counts as occupied."""
        hidden: float = Field(6.0, ge=0)
        """Optical depth behind which samples are skipped; 0 evaluates every one."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.step_size = 2 * context.bound / options.samples
        box = [[-context.bound] * 3, [context.bound] * 3]
        self.grid = OccupancyGrid(
            box, options.grid, self.step_size, threshold=options.threshold, warmup=options.warmup,
            every=options.update_every,
        )  # fmt: skip

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    @torch.no_grad()
    def update(self, step: Step) -> None:
        self.grid.update(self._part("geometry").density, step.index, step.generator("occupancy"))

    def _rays(self, origins: Tensor, directions: Tensor, jitter: Tensor | None, normals: bool) -> dict[str, Tensor]:
        samples = self.grid.march(origins, directions, jitter=jitter, max_samples=4 * self.options.samples)
        return self._shade(self._visible(samples, origins, directions), origins, directions, normals)

    @torch.no_grad()
    def _visible(self, samples: RaySamples, origins: Tensor, directions: Tensor) -> RaySamples:
        """Drop samples that the occupancy grid's own densities already hide: a solid's inside costs nothing then.

        A cell counts with the least density of its neighbourhood, for a cell that the surface cuts is no wall to what
        lies in front of the cut; only what keeps less than e^-``hidden`` of the light goes.
        """
        if not self.options.hidden or not len(samples.t_starts):
            return samples
        grid = self.grid
        cells = (samples.positions(origins, directions) - grid.aabb[0]) / (grid.aabb[1] - grid.aabb[0])
        x, y, z = (cells * grid.resolution).long().clamp(0, grid.resolution - 1).unbind(-1)
        least = -F.max_pool3d(-grid.density[None], 3, stride=1, padding=1)[0]
        depth = least[x, y, z].double() * (samples.t_ends - samples.t_starts)
        total = F.pad(depth.cumsum(0), (1, 0))
        keep = total[:-1] - total[samples.offsets[samples.ray_ids]] < self.options.hidden
        kept = F.pad(keep.long().cumsum(0), (1, 0))
        return RaySamples(samples.t_starts[keep], samples.t_ends[keep], samples.ray_ids[keep], kept[samples.offsets])

    def extra_repr(self) -> str:
        return f"step {self.step_size:.4f}, at most {math.ceil(self.options.samples * 3**0.5)} samples a ray"
