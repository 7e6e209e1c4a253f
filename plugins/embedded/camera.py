"""How the embedded prior is told its viewpoint: a short vector that enters beside the timestep."""

from __future__ import annotations

import torch
from torch import Tensor

HARMONICS = (1, 2, 3)
"""Multiples of the azimuth of which sine and cosine are told."""
CAMERA_DIM = 4 + 2 * len(HARMONICS)


def embed_camera(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """[B] radians, [B] radians to [B, 10]: a flag, three harmonics of the azimuth, sine, cosine and slope of elevation.

    A vector of zeros (flag 0) means that no viewpoint is told: the same network then is the plain text-to-image prior.
    """
    harmonics = [f(k * azimuth) for k in HARMONICS for f in (torch.sin, torch.cos)]
    tilt = [torch.sin(elevation), torch.cos(elevation), elevation * 2 / torch.pi]
    return torch.stack([torch.ones_like(azimuth), *harmonics, *tilt], -1)


def no_camera(count: int, device: torch.device | str = "cpu") -> Tensor:
    """[B, 10] zeros."""
    return torch.zeros(count, CAMERA_DIM, device=device)
