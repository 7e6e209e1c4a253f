"""Where a scene may hold something: a coarse grid that lets ray marching skip the rest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.errors import UserError

from .marching import RaySamples, march

DensityFn = Callable[[Tensor], Tensor]  # world points [M, 3] -> densities [M]


class OccupancyGrid(nn.Module):
    """A running estimate of density in the cells of a box (Müller et al. 2022, appendix E.2; Li et al. 2023).

    Until ``warmup`` steps have gone by every cell counts as occupied, so that a scene that starts as a faint cloud is
    not cut away before it has a shape.

    Args:
        aabb: lowest and highest corner of the box in the world, [2, 3] or a pair of triples.
        resolution: cells per side.
        step_size: length of a marching step; a density counts by the opacity that one step of it makes.
        threshold: a cell is occupied above min(threshold, mean over all cells) of that opacity's first-order value
            density * step_size.
        decay: how much of the old estimate a new, lower one leaves, per update.
        warmup: in steps.
        every: :meth:`update` does something at multiples of this many steps.

    Attributes:
        density: buffer [R, R, R] float32, indexed x, y, z.
        binary: buffer [R, R, R] bool.

    Raises:
        UserError: a value out of its range.
    """

    aabb: Tensor
    density: Tensor
    binary: Tensor

    def __init__(
        self,
        aabb: Tensor | list[list[float]],
        resolution: int = 64,
        step_size: float = 0.01,
        threshold: float = 0.01,
        decay: float = 0.95,
        warmup: int = 256,
        every: int = 16,
    ) -> None:
        super().__init__()
        if resolution < 1 or every < 1 or not 0 <= decay <= 1 or not step_size > 0:
            raise UserError(
                "occupancy grid: resolution and every must be at least 1, decay in [0, 1], step_size positive; got "
                f"resolution={resolution}, every={every}, decay={decay}, step_size={step_size}."
            )
        box = torch.as_tensor(aabb, dtype=torch.float32).reshape(2, 3)
        if not bool((box[0] < box[1]).all()):
            raise UserError(f"occupancy grid: the box {box.tolist()} must go from its lowest to its highest corner.")
        self.resolution, self.step_size, self.threshold = resolution, step_size, threshold
        self.decay, self.warmup, self.every = decay, warmup, every
        self.register_buffer("aabb", box)
        self.register_buffer("density", torch.zeros(resolution, resolution, resolution))
        self.register_buffer("binary", torch.ones(resolution, resolution, resolution, dtype=torch.bool))

    @torch.no_grad()
    def update(
        self, density_fn: DensityFn, step: int, generator: torch.Generator | None = None, chunk: int = 1 << 17
    ) -> bool:
        """Look at the scene again, at multiples of ``every`` steps; tells whether it did.

        During the warm-up every cell is looked at, later a quarter of all cells and as many of the occupied ones,
        each at a random place in it. An estimate is the maximum of the decayed old and the new.

        Args:
            density_fn: world points [M, 3] -> densities [M] (or [M, 1]), >= 0.
            step: of the job, from 0.
            generator: for the random cells and places, on the grid's device or the CPU.
            chunk: most points per call of density_fn.
        """
        if step % self.every:
            return False
        cells = self._cells(step, generator)
        found = torch.cat([density_fn(p).reshape(-1).float() for p in self._places(cells, generator).split(chunk)])
        flat = self.density.view(-1)
        fresh = torch.full_like(flat, -1.0).scatter_reduce(0, cells, found, "amax")  # cells may be drawn twice
        flat.copy_(torch.where(fresh >= 0, torch.maximum(flat * self.decay, fresh), flat))
        if step >= self.warmup:
            self._decide()
        return True

    def march(
        self,
        origins: Tensor,
        directions: Tensor,
        near: float = 0.0,
        far: float = float("inf"),
        jitter: Tensor | None = None,
        max_samples: int = 1024,
        backend: str | None = None,
    ) -> RaySamples:
        """:func:`core.kernels.marching.march` through this grid, with its step."""
        return march(
            origins, directions, self.aabb, self.binary, self.step_size, near, far, jitter, max_samples, backend
        )

    @torch.no_grad()
    def occupy_all(self) -> None:
        """Forget: every cell counts as occupied until the next update after the warm-up."""
        self.binary.fill_(True)
        self.density.zero_()

    def _decide(self) -> None:
        opacity = self.density * self.step_size
        self.binary.copy_(opacity > opacity.mean().clamp(max=self.threshold))
        if not bool(self.binary.any()):  # nothing left would mean no samples, hence no gradients, for ever
            self.binary.fill_(True)

    def _cells(self, step: int, generator: torch.Generator | None) -> Tensor:
        """Flat indices of the cells to look at."""
        total, device = self.density.numel(), self.density.device
        if step < self.warmup:
            return torch.arange(total, device=device)
        share = max(1, total // 4)
        anywhere = _integers(total, share, device, generator)
        occupied = self.binary.view(-1).nonzero().squeeze(1)
        if occupied.numel() > share:
            occupied = occupied[_integers(occupied.numel(), share, device, generator)]
        return torch.cat([anywhere, occupied])

    def _places(self, cells: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random world point in each cell: [M, 3]."""
        r = self.resolution
        corner = torch.stack([cells // (r * r), cells // r % r, cells % r], -1)
        source = generator.device if generator is not None else cells.device
        jitter = torch.rand(len(cells), 3, generator=generator, device=source).to(cells.device)
        return self.aabb[0] + (corner + jitter) / r * (self.aabb[1] - self.aabb[0])


def _integers(high: int, count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    source = generator.device if generator is not None else device
    return torch.randint(high, (count,), generator=generator, device=source).to(device)
