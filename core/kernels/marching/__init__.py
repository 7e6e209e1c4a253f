"""Ray marching: rays to samples, uniform in step, skipping the empty cells of an occupancy grid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch

__all__ = ["RaySamples", "march", "stretch"]


class RaySamples(NamedTuple):
    """Intervals along rays, packed: all of ray 0 front to back, then all of ray 1 ...

    Attributes:
        t_starts, t_ends: [M] distances along the rays, t_starts < t_ends.
        ray_ids: [M] int64, rising.
        offsets: [N + 1] int64; ray n owns samples offsets[n] to offsets[n + 1].
    """

    t_starts: Tensor
    t_ends: Tensor
    ray_ids: Tensor
    offsets: Tensor

    @property
    def mids(self) -> Tensor:
        """[M] distances of the middles."""
        return 0.5 * (self.t_starts + self.t_ends)

    def positions(self, origins: Tensor, directions: Tensor) -> Tensor:
        """[M, 3] middles in the world, of rays [N, 3], [N, 3]; differentiable in both."""
        return origins[self.ray_ids] + directions[self.ray_ids] * self.mids[:, None]


@torch.no_grad()
def march(
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
    aabb: Tensor,  # [2, 3] lowest and highest corner
    binary: Tensor,  # [R, R, R] bool, indexed x, y, z
    step_size: float,
    near: float = 0.0,
    far: float = float("inf"),
    jitter: Tensor | None = None,  # [N] in [0, 1]
    max_samples: int = 1024,
    backend: str | None = None,
) -> RaySamples:
    """Cut each ray into steps within the box and keep those whose middle lies in an occupied cell.

    A ray's stretch [t0, t1] is where it is inside the box, between near and far. It is cut at
    t0 + (k - jitter) * step_size, k = 1, 2 ...: the first and last interval are shorter, none is lost, so the kept
    intervals of a full grid add up to t1 - t0 whatever the jitter. Not differentiable.

    Args:
        origins, directions: [N, 3], [N, 3], in the world; distances count in lengths of the direction.
        aabb: [2, 3].
        binary: [R0, R1, R2] bool, whether each cell may hold something.
        step_size: > 0, in the unit of the distances.
        near, far: distances where rays begin and end, 0 <= near.
        jitter: [N] in [0, 1], a random part of a step for every ray; None for no jitter.
        max_samples: per ray; the nearest ones are kept.
        backend: forces one of :func:`core.kernels.dispatch.backends`.

    Raises:
        UserError: shapes that do not fit, a step that is not positive, or an impossible backend.
    """
    _check(origins, directions, aabb, binary, step_size, jitter)
    if jitter is None:
        jitter = torch.zeros_like(origins[:, 0])
    module = dispatch.resolve("march", origins.device.type, backend)
    t0, t1, steps = _stretch(origins, directions, aabb, step_size, near, far, jitter)
    lengths = (aabb[1] - aabb[0]).to(origins)
    shape = torch.tensor(binary.shape, device=origins.device)
    # The walk happens in cells, so that finding a sample's cell takes a multiply and an add.
    starts = (origins - aabb[0].to(origins)) / lengths * shape
    moves = directions / lengths * shape
    samples = module.march(starts, moves, binary, t0, t1, steps, float(step_size), jitter, int(max_samples))
    return RaySamples(*samples)


def _stretch(
    origins: Tensor, directions: Tensor, aabb: Tensor, step: float, near: float, far: float, jitter: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`stretch`, and how many steps that is, [N] int64."""
    t0, t1 = stretch(origins, directions, aabb, near, far)
    count = ((t1 - t0) / step + jitter).ceil().nan_to_num(0, 0, 0).clamp(0, 2**31)
    moving = (directions != 0).any(-1)
    return t0, t1, torch.where((t1 > t0) & moving, count, torch.zeros_like(count)).long()


def stretch(
    origins: Tensor, directions: Tensor, aabb: Tensor, near: float = 0.0, far: float = float("inf")
) -> tuple[Tensor, Tensor]:
    """Distances [N], [N] at which rays [N, 3] enter and leave the box [2, 3] (slab test), between near and far; what
    misses it enters after it leaves."""
    # A ray parallel to a side divides by zero; the largest finite slope keeps inf * 0 out of the comparison.
    limit = torch.finfo(directions.dtype).max
    inverse = directions.reciprocal().clamp(-limit, limit)
    box = aabb.to(origins)
    first, second = (box[0] - origins) * inverse, (box[1] - origins) * inverse
    t0 = torch.minimum(first, second).amax(-1).clamp(min=near)
    return t0, torch.maximum(first, second).amin(-1).clamp(max=far)


def _check(
    origins: Tensor, directions: Tensor, aabb: Tensor, binary: Tensor, step_size: float, jitter: Tensor | None
) -> None:
    if origins.ndim != 2 or origins.shape[1] != 3 or origins.shape != directions.shape:
        raise UserError(
            f"march: origins and directions must both be [N, 3], not {list(origins.shape)}, {list(directions.shape)}."
        )
    if aabb.shape != (2, 3) or binary.ndim != 3 or binary.dtype != torch.bool:
        raise UserError("march: the box must be [2, 3] and the grid a bool tensor [R, R, R].")
    if not step_size > 0:
        raise UserError(f"march: step_size is {step_size}; it must be positive.")
    if jitter is not None and jitter.shape != origins.shape[:1]:
        raise UserError(f"march: jitter must be [N] = [{origins.shape[0]}], not {list(jitter.shape)}.")
