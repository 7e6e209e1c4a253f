"""What a lion is asked to draw: new shapes, shapes between two, or variations of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.errors import UserError
from core.meshing.files import centred, read_mesh
from core.meshing.sampling import sample_surface
from plugins.lion.sampling import Latents, between

if TYPE_CHECKING:
    from plugins.lion.lion import Lion

_REACH = 0.9
"""Of a given mesh's farthest vertex, as the data's objects reach."""


def drawn(
    lion: Lion, count: int, told: Tensor | None, random: torch.Generator, chunk: int
) -> Iterator[tuple[Latents, list[Latents]]]:
    """Latents of ``count`` shapes in parts, and for each part further draws of its latent points.

    Raises:
        UserError: the mode needs priors that are not there yet, two samples, or a mesh that can be read.
    """
    mode = lion.options.sampling.mode
    if mode != "samples" and not lion.has_prior:
        raise UserError(f"lion: sampling.mode={mode} needs the priors, which are fitted after the autoencoder")
    if mode == "samples":
        for first in range(0, count, chunk):
            part = None if told is None else told[first : first + chunk]
            latents = lion.latents(min(chunk, count - first), part, random)
            yield latents, _again(lion, latents, part, random)
        return
    latents = interpolated(lion, count, told, random) if mode == "interpolation" else varied(lion, count, told, random)
    yield latents, []


def _again(lion: Lion, latents: Latents, told: Tensor | None, random: torch.Generator) -> list[Latents]:
    """Further points of the same shapes, for a denser surface; none without a global latent that holds the shape."""
    if not lion.has_prior or not lion.options.hierarchical:
        return []
    told = None if told is None else told.to(lion.device)
    more = []
    for _ in range(lion.options.surface.draws - 1):
        start = lion.noise(len(latents), random)
        more.append(Latents(latents.z, lion.walk().points_of(latents.z, start.h, told, random)))
    return more


def interpolated(lion: Lion, count: int, told: Tensor | None, random: torch.Generator) -> Latents:
    """``count`` shapes from one to another: two meshes that are given, or two samples.

    Raises:
        UserError: fewer than two shapes are asked for, or a mesh cannot be read.
    """
    if count < 2:
        raise UserError("lion: an interpolation has two ends at least; ask for 2 samples or more (-n)")
    walk, nothing = lion.walk(), _nothing(lion, 2)
    given = lion.options.sampling.shapes
    ends = walk.up(encoded(lion, given, random), nothing) if given else lion.noise(2, random)
    noise = between(ends[:1], ends[1:], torch.linspace(0, 1, count, device=lion.device))
    part = None if told is None or given else told[:1].expand(count, -1).to(lion.device)
    # Noise drawn anew on the way down would part neighbours, and the ends from what they are.
    return walk.down(noise, _nothing(lion, count) if part is None else part, None)


def varied(lion: Lion, count: int, told: Tensor | None, random: torch.Generator) -> Latents:
    """``count`` shapes near one, a given mesh or a sample, noised to time ``sampling.noise`` and denoised.

    Raises:
        UserError: the mesh cannot be read.
    """
    walk, given = lion.walk(), lion.options.sampling.shapes
    told = None if told is None else told[:1].to(lion.device)
    base = encoded(lion, given, random) if given else lion.latents(1, told, random)
    time = lion.options.sampling.noise
    noisy = walk.noised(base.repeated(count), time, random)
    part = _nothing(lion, count) if told is None or given else told.expand(count, -1)
    return walk.down(noisy, part, random, time)


def encoded(lion: Lion, paths: tuple[Path, ...], random: torch.Generator) -> Latents:
    """Latents of meshes in files, centred and scaled to the size of the data's objects.

    Raises:
        UserError: a file is missing or holds no mesh.
    """
    count = lion.options.data.options.points
    clouds = []
    for path in paths:
        mesh = centred(read_mesh(str(path), "sampling.shapes"), _REACH)
        clouds.append(sample_surface(mesh, count, random).positions)
    return lion.encode(torch.stack(clouds), lambda shape: torch.randn(shape, generator=random))


def _nothing(lion: Lion, count: int) -> Tensor | None:
    """Conditions that say nothing."""
    width = lion.conditions.width
    return torch.zeros(count, width, device=lion.device) if width else None
