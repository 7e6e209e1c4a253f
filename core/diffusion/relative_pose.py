"""How a viewpoint-conditioned prior is told where a wanted view lies relative to the given one.

Zero-1-to-3 (Liu et al. 2023, sec. 3.2): differences of the polar angle, of the azimuth as sine and cosine, and of the
radius. The polar angle is measured from +z downwards, so a camera that rises makes the first number negative.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from core.types import Cameras

PoseMode = Literal["relative-radius", "absolute-polar"]
"""The fourth number: the radius difference (Zero-1-to-3, Zero123-XL), or the given camera's own polar angle (Stable
Zero123)."""


def relative_pose(given: Cameras, wanted: Cameras, mode: PoseMode = "relative-radius") -> Tensor:
    """[B, 4] of B ``wanted`` cameras as seen from B (or 1) ``given`` ones; angles in radians, radii in world units."""
    polar, polar_given = polar_angle(wanted), polar_angle(given)
    turn = wanted.azimuth - given.azimuth
    last = wanted.distance - given.distance if mode == "relative-radius" else polar_given.expand_as(polar)
    return torch.stack([polar - polar_given, torch.sin(turn), torch.cos(turn), last], -1)


def polar_angle(cameras: Cameras) -> Tensor:
    """[B] radians from +z downwards, in [0, pi]."""
    return math.pi / 2 - cameras.elevation
