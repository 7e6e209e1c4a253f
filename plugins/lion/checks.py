"""What each part of a lion is good for, in numbers: the autoencoder, the two latents, and the way between shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.points.sets import chamfer_matrix
from plugins.lion.sampling import Latents, between

if TYPE_CHECKING:
    from plugins.lion.lion import Lion

_SHAPES, _DRAWS, _STEPS, _PAIRS = 8, 4, 7, 4


class Classes:
    """The class of the nearest known shape by the Chamfer distance: a judge that knows nothing of the model."""

    def __init__(self, points: Tensor, label: Tensor) -> None:
        self.points, self.label = points, label

    def of(self, clouds: Tensor) -> Tensor:
        """[B] classes of clouds [B, N, 3]."""
        return self.label[chamfer_matrix(clouds, self.points).argmin(1)]

    def agree(self, clouds: Tensor, label: Tensor) -> float:
        """The share of clouds whose class is ``label`` [B]."""
        return float((self.of(clouds) == label).float().mean())

    def nearest(self, clouds: Tensor) -> Tensor:
        """[B] distances to the nearest known shape."""
        return chamfer_matrix(clouds, self.points).amin(1)


def paired(a: Tensor, b: Tensor) -> Tensor:
    """[B] Chamfer distances of clouds [B, N, 3] one by one, squared and summed both ways."""
    return torch.cat([chamfer_matrix(one[None], other[None])[0] for one, other in zip(a, b, strict=True)])


def noise_of(lion: Lion, count: int, seed: int) -> Latents:
    """Noise of time 1 that follows from ``seed``."""
    return lion.noise(count, torch.Generator().manual_seed(seed))


def _drawn(lion: Lion, points: Tensor, seed: int = 0) -> Latents:
    random = torch.Generator().manual_seed(seed)
    return lion.encode(points, lambda shape: torch.randn(shape, generator=random))


def _decoded(lion: Lion, latents: Latents) -> Tensor:
    return lion.decode(latents).points.float().cpu()


@torch.no_grad()
def autoencoder(lion: Lion, points: Tensor, again: Tensor) -> dict[str, float]:
    """Reconstruction of held-out shapes, against two sets of points of one surface."""
    latents = _drawn(lion, points)
    back, usual = _decoded(lion, latents), float(paired(points, again).mean())
    found = float(paired(points, back).mean())
    other = Latents(latents.z.roll(1, 0), latents.h)
    return {
        "CD of reconstructions": found,
        "CD of two samplings of the same surfaces": usual,
        "ratio (1.5 at most is asked)": found / usual,
        "the same, told another shape's global latent": float(paired(points, _decoded(lion, other)).mean()) / usual,
    }


@torch.no_grad()
def hierarchy(lion: Lion, classes: Classes) -> dict[str, float]:
    """Shapes of one global latent against shapes of several."""
    random = torch.Generator().manual_seed(7)
    told = lion.conditions.of_asked(None, _SHAPES, random)
    told = None if told is None else told.to(lion.device)
    first = lion.latents(_SHAPES, told, random).repeated(_DRAWS)
    many = None if told is None else told.repeat_interleave(_DRAWS, 0)
    h = lion.walk().points_of(first.z, noise_of(lion, len(first), 8).h, many, random)
    clouds = _decoded(lion, Latents(first.z, h))
    gaps = chamfer_matrix(clouds, clouds)
    of = torch.arange(len(clouds)) // _DRAWS
    same, own = of[:, None] == of[None], torch.eye(len(clouds), dtype=torch.bool)
    label = classes.of(clouds).view(_SHAPES, _DRAWS)
    return {
        "CD, same global latent": float(gaps[same & ~own].mean()),
        "CD, other global latent": float(gaps[~same].mean()),
        "class stays with the global latent": float((label == label.mode(1).values[:, None]).float().mean()),
    }


@torch.no_grad()
def interpolation(lion: Lion, points: Tensor, label: Tensor) -> dict[str, float]:
    """Through the noise of two held-out shapes of one class: whether each step leads away from the one and towards the
    other, and how well the ends come back."""
    pairs = [(int(k), int(rest[0])) for k in range(len(label)) if len(rest := (label[k + 1 :] == label[k]).nonzero())]
    walk, onwards, back = lion.walk(), [], []
    for k, (i, gap) in enumerate(pairs[:_PAIRS]):
        ends = points[[i, i + 1 + gap]]
        told = lion.conditions.classes(label[[i, i]]) if lion.conditions.kind == "class" else None
        if told is None and lion.conditions.width:
            told = torch.zeros(2, lion.conditions.width)
        told = None if told is None else told.to(lion.device)
        noise = walk.up(_drawn(lion, ends, k), told)
        path = between(noise[:1], noise[1:], torch.linspace(0, 1, _STEPS, device=lion.device))
        many = None if told is None else told[:1].expand(_STEPS, -1)
        clouds = _decoded(lion, walk.down(path, many, None))
        gaps = chamfer_matrix(clouds, ends)
        onwards.append(
            (gaps[1:, 0] > gaps[:-1, 0]).float().mean() / 2 + (gaps[1:, 1] < gaps[:-1, 1]).float().mean() / 2
        )
        back.append((gaps[0, 0] + gaps[-1, 1]) / 2)
    if not pairs:
        return {}
    return {"steps that lead on": float(torch.stack(onwards).mean()), "CD of the ends": float(torch.stack(back).mean())}


@torch.no_grad()
def denoised(lion: Lion, points: Tensor, label: Tensor, time: float) -> dict[str, float]:
    """Held-out shapes noised to ``time`` and denoised, against other shapes of their class."""
    told = lion.conditions.classes(label) if lion.conditions.kind == "class" else None
    if told is None and lion.conditions.width:
        told = torch.zeros(len(points), lion.conditions.width)
    random, walk = torch.Generator().manual_seed(9), lion.walk()
    noisy = walk.noised(_drawn(lion, points), time, random)
    made = _decoded(lion, walk.down(noisy, None if told is None else told.to(lion.device), random, time))
    gaps = chamfer_matrix(points, points)
    alike = (label[:, None] == label[None]) & ~torch.eye(len(label), dtype=torch.bool)
    return {
        "CD to the shape": float(paired(points, made).mean()),
        "CD to others of its class": float(gaps[alike].mean()) if bool(alike.any()) else float("nan"),
        "CD to the autoencoder's answer": float(paired(_decoded(lion, _drawn(lion, points)), made).mean()),
    }
