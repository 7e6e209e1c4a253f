"""Image-based lighting in two factors (Karis 2013, "Real Shading in Unreal Engine 4", the split sum approximation).

The specular integral over an environment L with the Cook-Torrance lobe of GGX (Walter et al. 2007) is taken as
``prefiltered(r, roughness) (F0 scale + bias)``: the environment blurred by the lobe seen from straight above, times the
lobe's integral under white light. Both, and the cosine-weighted diffuse light, are integrated here once per process.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from core.panorama import directions, environment

LEVELS = 6  # roughness 0, 0.2, … 1
HEIGHT = 32
TABLE = 32


def hammersley(count: int) -> Tensor:
    """[count, 2] evenly spread points in the unit square."""
    index = torch.arange(count)
    reverse, bits = torch.zeros(count, dtype=torch.float64), index.clone()
    for k in range(1, 33):
        reverse += (bits & 1).double() / 2**k
        bits = bits >> 1
    return torch.stack([(index.double() + 0.5) / count, reverse + 0.5 / count], -1)


def half_vectors(points: Tensor, alpha: Tensor) -> Tensor:
    """[..., 3] half vectors round +z drawn with density D(h) cos (Walter et al. 2007, eq. 35, 36)."""
    phi = 2 * math.pi * points[:, 0]
    cosine = torch.sqrt((1 - points[:, 1]) / (1 + (alpha.square() - 1) * points[:, 1]))
    sine = (1 - cosine.square()).clamp(min=0).sqrt()
    return torch.stack([sine * phi.cos(), sine * phi.sin(), cosine], -1)


def smith(cos_view: Tensor, cos_light: Tensor, alpha: Tensor) -> Tensor:
    """G / (n.l n.v): height-correlated masking and shadowing of GGX times two (Heitz 2014, eq. 99), divided out."""
    a = alpha.square()
    view = cos_light * torch.sqrt(cos_view.square() * (1 - a) + a)
    light = cos_view * torch.sqrt(cos_light.square() * (1 - a) + a)
    return 2 / (view + light).clamp(min=1e-9)


@cache
def brdf_table(samples: int = 512) -> Tensor:
    """[TABLE, TABLE, 2] scale and bias of F0; rows by roughness, columns by n.v, both from 0 (nearly) to 1."""
    grid = torch.linspace(0, 1, TABLE, dtype=torch.float64).clamp(min=5e-3)
    cos_view, alpha = grid[None, :, None], grid[:, None, None].square()
    half = half_vectors(hammersley(samples), alpha)  # [T, 1, S, 3]
    view = torch.stack([(1 - cos_view.square()).sqrt(), 0 * cos_view, cos_view], -1)
    dot = (view * half).sum(-1)
    cos_light = (2 * dot * half[..., 2] - cos_view).clamp(min=0)
    # f cos / pdf with pdf = D h.n / (4 v.h) leaves G v.h / (n.v h.n).
    weight = smith(cos_view, cos_light, alpha) * cos_light * dot.clamp(min=0) / half[..., 2].clamp(min=1e-9)
    fresnel = (1 - dot.clamp(0, 1)) ** 5
    return torch.stack([(weight * (1 - fresnel)).mean(-1), (weight * fresnel).mean(-1)], -1).float()


@cache
def prefiltered(name: str, samples: int = 512) -> Tensor:
    """[LEVELS, HEIGHT, 2 HEIGHT, 3] linear radiance blurred by the lobe of each roughness, seen along its normal.

    Karis weights the drawn directions by n.l; here they have the masking of the lobe itself, so that for a view along
    the normal the product of the two factors is the whole integral (but for Fresnel's slope).
    """
    toward = directions(HEIGHT, 2 * HEIGHT)
    frames = _frames(toward)
    levels = [environment(name, toward)]
    for index in range(1, LEVELS):
        alpha = torch.tensor((index / (LEVELS - 1)) ** 2, dtype=torch.float64)
        half = half_vectors(hammersley(samples), alpha)
        light = 2 * half[:, 2:] * half - half.new_tensor([0.0, 0.0, 1.0])
        cosine = light[:, 2].clamp(min=0)
        weight = smith(torch.ones_like(cosine), cosine, alpha) * cosine
        levels.append(_gathered(name, frames, light.float(), weight.float()))
    return torch.stack(levels)


@cache
def irradiance(name: str, samples: int = 1024) -> Tensor:
    """[1, HEIGHT / 2, HEIGHT, 3] cosine-weighted mean radiance: what a white diffuse surface shows."""
    points = hammersley(samples)
    radius, phi = points[:, 1].sqrt(), 2 * math.pi * points[:, 0]
    light = torch.stack([radius * phi.cos(), radius * phi.sin(), (1 - points[:, 1]).sqrt()], -1).float()
    return _gathered(name, _frames(directions(HEIGHT // 2, HEIGHT)), light, torch.ones(samples))[None]


def _frames(normal: Tensor) -> Tensor:
    """[..., 3, 3] whose columns are two tangents and ``normal`` [..., 3]."""
    helper = torch.where(normal[..., 2:].abs() < 0.9, normal.new_tensor([0.0, 0, 1]), normal.new_tensor([1.0, 0, 0]))
    first = F.normalize(torch.linalg.cross(helper, normal, dim=-1), dim=-1)
    return torch.stack([first, torch.linalg.cross(normal, first, dim=-1), normal], -1)


def _gathered(name: str, frames: Tensor, light: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean radiance in the directions ``light`` [S, 3] of every frame [H, W, 3, 3]."""
    rows = []
    for row in frames:
        seen = environment(name, (row @ light.T).transpose(-1, -2))  # [W, S, 3]
        rows.append((seen * weight[:, None]).sum(1) / weight.sum())
    return torch.stack(rows)
