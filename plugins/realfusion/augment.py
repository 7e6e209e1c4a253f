"""Random changes of one picture, so that a word learned from it means the object and not that very picture.

RealFusion's (Melas-Kyriazi et al. 2023, appendix): enlarged crops, small rotations, flips, slight changes of colour,
now and then grey or blurred.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ROTATION = math.radians(10)
SCALES = (0.85, 1.15)
ENLARGED = 1.25
JITTER = 0.04


def augmented(rgb: Tensor, count: int, generator: torch.Generator, background: float) -> Tensor:
    """[count, H, W, 3] variants of a picture [H, W, 3] in [0, 1]; what comes in from outside is ``background``."""
    # Over a background of zero, so that the border's padding is the background.
    image = (rgb - background).permute(2, 0, 1).expand(count, -1, -1, -1)
    warped = F.grid_sample(image, _warps(count, rgb.shape[:2], generator).to(rgb), align_corners=False)
    return _colors(warped + background, generator).permute(0, 2, 3, 1).clamp(0, 1)


def _warps(count: int, size: torch.Size, generator: torch.Generator) -> Tensor:
    """[count, H, W, 2] sampling positions: rotated (three in four), scaled, shifted, mirrored (every other)."""
    angle, scale, shift_x, shift_y, turned, mirrored = torch.rand(6, count, generator=generator)
    angle = (2 * angle - 1) * ROTATION * (turned < 0.75)
    scale = 1 / ((SCALES[0] + (SCALES[1] - SCALES[0]) * scale) * ENLARGED**0.5)
    flip = torch.where(mirrored < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = flip * scale * torch.cos(angle), -scale * torch.sin(angle)
    theta[:, 1, 0], theta[:, 1, 1] = flip * scale * torch.sin(angle), scale * torch.cos(angle)
    theta[:, 0, 2], theta[:, 1, 2] = (2 * shift_x - 1) * (1 - scale), (2 * shift_y - 1) * (1 - scale)
    return F.affine_grid(theta, [count, 3, *size], align_corners=False)


def _colors(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation by up to 4 % (three in four), grey (one in ten), blurred (one in ten)."""
    rolls = torch.rand(6, len(images), 1, 1, 1, generator=generator).to(images)
    bright, contrast, saturation = (1 + JITTER * (2 * r - 1) * (rolls[3] < 0.75) for r in rolls[:3])
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * torch.where(rolls[4] < 0.1, torch.zeros_like(saturation), saturation)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (middle + (images - middle) * contrast) * bright
    return torch.where(rolls[5] < 0.1, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), images)
