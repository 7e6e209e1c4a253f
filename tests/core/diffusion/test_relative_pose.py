"""The relative camera of Zero-1-to-3 against values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from core.diffusion.relative_pose import polar_angle, relative_pose
from core.types import Cameras


def _camera(azimuth, elevation, distance):
    values = (torch.tensor([math.radians(azimuth)]), torch.tensor([math.radians(elevation)]), torch.tensor([float(distance)]))
    return Cameras.orbit(*values, torch.ones(1), 8, 8)


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        ((0, 0, 3), (0, 0, 3), (0, 0, 1, 0)),
        ((0, 20, 3), (90, 20, 3), (0, 1, 0, 0)),
        ((0, 0, 3), (-90, 30, 2), (-math.pi / 6, -1, 0, -1)),  # higher: nearer to +z, so a smaller polar angle
        ((10, 30, 1.5), (190, -15, 2.0), (math.pi / 4, 0, -1, 0.5)),
        ((350, 0, 2), (10, 0, 2), (0, math.sin(math.pi / 9), math.cos(math.pi / 9), 0)),  # over the full turn
        ((179, 0, 2), (-179, 0, 2), (0, math.sin(math.pi / 90), math.cos(math.pi / 90), 0)),
        ((0, 0, 2), (720 + 60, 0, 2), (0, math.sqrt(3) / 2, 0.5, 0)),
    ],
)
def test_by_hand(given, wanted, expected):
    pose = relative_pose(_camera(*given), _camera(*wanted))
    assert torch.allclose(pose[0], torch.tensor(expected, dtype=torch.float32), atol=2e-6)


def test_from_positions_alone():
    """As the published code has it: from the eyes, polar = arccos(z / r) and azimuth = atan2(y, x)."""
    random = torch.Generator().manual_seed(0)
    turns, tilts, far = torch.rand(6, generator=random) * 12 - 6, torch.rand(6, generator=random) * 2.8 - 1.4, 1 + torch.rand(6, generator=random)
    cameras = Cameras.orbit(turns, tilts, far, torch.ones(6), 8, 8)
    eye = cameras.position.double()
    radius = eye.norm(dim=-1)
    polar, azimuth = torch.acos(eye[:, 2] / radius), torch.atan2(eye[:, 1], eye[:, 0])
    turn = (azimuth[1:] - azimuth[:1]) % (2 * math.pi)
    expected = torch.stack([polar[1:] - polar[0], turn.sin(), turn.cos(), radius[1:] - radius[0]], -1)
    assert torch.allclose(relative_pose(cameras[:1], cameras[1:]).double(), expected, atol=1e-5)


def test_stable_zero123_gives_the_given_cameras_polar_angle():
    pose = relative_pose(_camera(0, 20, 3), _camera(45, 0, 2), "absolute-polar")
    assert pose[0, 3] == pytest.approx(math.radians(70), abs=1e-5) and pose[0, 0] == pytest.approx(math.radians(20), abs=1e-5)
    assert polar_angle(_camera(0, 90, 3))[0] == pytest.approx(0, abs=1e-3)
