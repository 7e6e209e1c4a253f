"""Pictures of everything round a point: lat-long panoramas, looked up by direction, and two made by formula.

A panorama is [H, W, C]: rows from straight up (row 0) to straight down, columns by azimuth, counter-clockwise seen from
above, from the back (-x) over -y, the front (+x, the middle column) and +y to the back again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ENVIRONMENTS = ("studio", "sky")


def directions(height: int, width: int) -> Tensor:
    """[H, W, 3] unit directions of a panorama's pixel centres."""
    polar = (torch.arange(height) + 0.5) * (math.pi / height)
    azimuth = (torch.arange(width) + 0.5) * (2 * math.pi / width) - math.pi
    polar, azimuth = torch.meshgrid(polar, azimuth, indexing="ij")
    return torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], -1)


def look_up(levels: Tensor, toward: Tensor, level: Tensor | None = None) -> Tensor:
    """Interpolated values of panoramas, differentiable in all three.

    Args:
        levels: [L, H, W, C].  toward: [..., 3] unit directions.
        level: [...] in [0, 1] from the first to the last of the L; None takes the first.

    Returns:
        [..., C]; columns wrap round, rows end at the poles.
    """
    count, height, width, channels = levels.shape
    flat = toward.reshape(-1, 3)
    # A level direction's slope in atan2 is infinite only at the poles, where every column shows the same.
    upright = (flat[:, 0].square() + flat[:, 1].square()) < 1e-12
    azimuth = torch.atan2(flat[:, 1], torch.where(upright, torch.ones_like(flat[:, 0]), flat[:, 0]))
    polar = torch.acos(flat[:, 2].clamp(-1 + 1e-6, 1 - 1e-6))
    wrapped = torch.cat([levels[:, :, -1:], levels, levels[:, :, :1]], 2)
    column = (azimuth / (2 * math.pi) + 0.5) * width + 1  # in pixels of the wrapped picture, from its left edge
    x, y = 2 * column / (width + 2) - 1, 2 * polar / math.pi - 1
    z = torch.zeros_like(x) if level is None else 2 * level.reshape(-1) - 1
    if count > 1:  # the first and last lie at -1 and 1 of themselves, not of their cells' borders
        z = z * (count - 1) / count
    grid = torch.stack([x, y, z], -1)[None, None, None]
    volume = wrapped.permute(3, 0, 1, 2)[None].to(grid)
    seen = F.grid_sample(volume, grid, padding_mode="border", align_corners=False)
    return seen.view(channels, -1).T.reshape(*toward.shape[:-1], channels)


def environment(name: str, toward: Tensor) -> Tensor:
    """[..., 3] linear radiance of a made environment in unit directions [..., 3].

    ``studio``: grey walls, a large soft light above the front left, a weaker one at the right, a bright ceiling.
    ``sky``: blue overhead, paler towards the horizon, a warm sun with a halo, brown ground.
    """
    z = toward[..., 2:]
    if name == "studio":
        walls = 0.30 + 0.12 * z
        key = _softbox(toward, (0.62, 0.42, 0.66), 0.80, 2.6)
        fill = _softbox(toward, (0.35, -0.85, 0.40), 0.84, 1.0)
        rim = _softbox(toward, (-0.85, 0.25, 0.46), 0.90, 1.6)
        ceiling = 0.5 * torch.sigmoid((z - 0.85) * 30)
        tint = toward.new_tensor([[1.0, 0.97, 0.92], [0.92, 0.96, 1.0], [1.0, 1.0, 1.0]])
        return 0.55 * (walls + ceiling + key * tint[0] + fill * tint[1] + rim * tint[2])
    if name == "sky":
        height = z.clamp(min=0)
        zenith, horizon = toward.new_tensor([0.18, 0.36, 0.75]), toward.new_tensor([0.75, 0.82, 0.9])
        ground = toward.new_tensor([0.2, 0.16, 0.12])
        above = horizon + (zenith - horizon) * (1 - (1 - height).square().square())
        sky = ground + (above - ground) * torch.sigmoid(z * 40)
        sun = F.normalize(toward.new_tensor([0.55, 0.45, 0.7]), dim=0)
        cosine = (toward * sun).sum(-1, keepdim=True)
        glow = 12.0 * torch.exp((cosine - 1) * 220) + 0.6 * torch.exp((cosine - 1) * 12)
        return sky + glow * toward.new_tensor([1.0, 0.9, 0.72])
    raise ValueError(f"no environment is called {name}; there are {', '.join(ENVIRONMENTS)}")


def _softbox(toward: Tensor, where: tuple[float, float, float], edge: float, strength: float) -> Tensor:
    """[..., 1] a round lamp: ``edge`` is the cosine at which it has half of its strength."""
    middle = F.normalize(toward.new_tensor(where), dim=0)
    return strength * torch.sigmoid(((toward * middle).sum(-1, keepdim=True) - edge) * 40)


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB, clipped to [0, 1]."""
    value = linear.clamp(0, 1)
    return torch.where(value <= 0.0031308, value * 12.92, 1.055 * value.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)
