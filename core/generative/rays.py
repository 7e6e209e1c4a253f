"""Pictures of a field by emission and absorption, at any rays: what denoisers that render are trained through.

The renderer ``volume`` skips what an occupancy grid of one scene knows to be empty; here a scene lives for one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from core.kernels.compositing import composite

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""At points [M, 3], seen along unit directions [M, 3]: density [M] per world unit and sRGB [M, 3] in [0, 1]."""


class Rays(NamedTuple):
    """What rays saw.

    Attributes:
        rgb: [R, 3] in [0, 1] over the background.
        opacity: [R] in [0, 1].
        depth: [R] mean distance along the ray, 0 where nothing was hit.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor


def crossing(origins: Tensor, directions: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Where rays [R, 3] enter and leave the cube of half side ``bound``, both [R], >= 0; equal where they miss it."""
    slope = torch.where(directions.abs() < 1e-9, 1e-9, directions)
    sides = torch.stack([(-bound - origins) / slope, (bound - origins) / slope])
    near, far = sides.amin(0).amax(-1).clamp(min=0), sides.amax(0).amin(-1)
    return near, torch.maximum(near, far)


def ball_crossing(origins: Tensor, directions: Tensor, center: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """As :func:`crossing`, of the ball round ``center`` [3]; directions are unit vectors."""
    to = center - origins
    middle = (to * directions).sum(-1)
    half = (radius**2 - (to.square().sum(-1) - middle.square())).clamp(min=0).sqrt()
    near, far = (middle - half).clamp(min=0), middle + half
    return near, torch.maximum(near, far)


def cast(
    field: Field,
    origins: Tensor,  # [R, 3]
    directions: Tensor,  # [R, 3] unit
    samples: int,
    bound: float,
    background: float = 0.5,
    generator: torch.Generator | None = None,
) -> Rays:
    """As :func:`cast_between`, between the sides of the cube of half side ``bound``."""
    return cast_between(
        field, origins, directions, *crossing(origins, directions, bound), samples, background, generator
    )


def cast_between(
    field: Field,
    origins: Tensor,  # [R, 3]
    directions: Tensor,  # [R, 3] unit
    near: Tensor,  # [R]
    far: Tensor,  # [R]
    samples: int,
    background: float = 0.5,
    generator: torch.Generator | None = None,
) -> Rays:
    """Composite a field along rays, in ``samples`` intervals of equal length from ``near`` to ``far``.

    Args:
        near, far: distances along each ray; nothing is asked for where they are equal.
        background: grey level behind the field, sRGB.
        generator: puts each sample at a random place in its interval (stratified); None puts it in the middle.
    """
    hit = far > near
    offsets = torch.nn.functional.pad((hit.long() * samples).cumsum(0), (1, 0))
    o, d, near, length = origins[hit], directions[hit], near[hit, None], ((far - near)[hit, None]) / samples
    starts = near + torch.arange(samples, device=near.device, dtype=near.dtype) * length  # [H, S]
    place = 0.5 if generator is None else torch.rand(starts.shape, generator=generator).to(starts)
    points = o[:, None] + (starts + place * length)[..., None] * d[:, None]
    density, rgb = field(points.flatten(0, 1), d[:, None].expand_as(points).flatten(0, 1))
    ends = (starts + length).flatten()
    seen = composite(density, rgb, starts.flatten(), ends, offsets)
    colour = seen.values + (1 - seen.opacity)[:, None] * background
    depth = torch.where(seen.opacity > 0.05, seen.depth / seen.opacity.clamp(min=1e-6), 0.0)
    return Rays(colour, seen.opacity, depth)
