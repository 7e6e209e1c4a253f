"""Random views: within their ranges, spread in azimuth, and following from the step alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from core.contracts import Context, Step
from core.testing import check_component
from core.types import Cameras
from plugins.cameras.random_cameras import RandomCameras


def views(index: int = 0, total: int = 100, seed: int = 0, **options: Any) -> Cameras:
    data = RandomCameras(RandomCameras.Config(**options), Context())
    return data.batch(Step(index, total, seed=seed))["cameras"]


def test_it_keeps_its_contract() -> None:
    assert len(check_component("data", "random-cameras")) >= 7


def test_views_lie_in_their_ranges_and_fill_them() -> None:
    ranges = {"elevation": (-20.0, 35.0), "distance": (1.5, 2.5), "fov": (30.0, 60.0)}
    seen = views(batch=4000, **ranges)
    measured = {"elevation": seen.elevation.rad2deg(), "distance": seen.distance, "fov": seen.fov_y.rad2deg()}
    for name, (low, high) in ranges.items():
        values, span = measured[name], high - low
        assert low - 1e-3 <= float(values.min()) < low + 0.01 * span, name
        assert high - 0.01 * span < float(values.max()) <= high + 1e-3, name
        # Uniform: mean in the middle, standard deviation span / sqrt(12), within four standard errors.
        assert abs(float(values.mean()) - (low + high) / 2) < 4 * span / math.sqrt(12 * 4000), name
        assert abs(float(values.std()) / span - 12**-0.5) < 0.01, name


@pytest.mark.parametrize("batch", [2, 4, 7])
def test_each_sector_of_the_circle_has_one_view(batch: int) -> None:
    for index in range(20):
        turned = views(index, batch=batch).azimuth.double() / (2 * math.pi)
        gaps = turned.sort().values.diff(append=turned.min().reshape(1) + 1)
        # One in each sector, in its first eight tenths: neighbours are 0.2 to 1.8 sectors apart.
        assert float(gaps.min()) * batch >= 0.2 - 1e-4 and float(gaps.max()) * batch <= 1.8 + 1e-4


def test_every_azimuth_comes_up() -> None:
    turned = torch.cat([views(k, batch=4).azimuth for k in range(300)])
    counts = torch.histc(turned, 12, -math.pi, math.pi)
    assert float(counts.min()) > 70 and float(counts.max()) < 130  # 100 each, by a standard deviation of at most 9.6


def test_the_share_of_views_from_above() -> None:
    elevation = views(batch=4000, overhead=0.25).elevation.rad2deg()
    above = elevation > 59.9
    assert float(elevation.max()) <= 85.001
    assert abs(float(above.float().mean()) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)
    assert not bool((views(batch=400).elevation.rad2deg() > 50.001).any())


def test_the_size_follows_its_schedule_in_steps_of_8() -> None:
    schedule = {"points": {0: 16, "50%": 16, "100%": 61}}
    sizes = [views(k, 101, batch=1, size=schedule).height for k in (0, 50, 75, 100)]
    assert sizes == [16, 16, 40, 64]
    assert views(batch=1, size=11).width == 8


def test_views_follow_from_the_step_alone() -> None:
    torch.manual_seed(0)
    first = views(7, seed=2)
    torch.manual_seed(1)
    assert torch.equal(first.c2w, views(7, seed=2).c2w)
    assert not torch.equal(first.c2w, views(8, seed=2).c2w)
    assert not torch.equal(first.c2w, views(7, seed=3).c2w)


@pytest.mark.parametrize("name", ["elevation", "distance", "fov"])
def test_a_range_goes_from_low_to_high(name: str) -> None:
    with pytest.raises(ValidationError, match="from low to high"):
        RandomCameras.Config(**{name: (50.0, 40.0)})


def test_sets_of_views_lie_on_a_circle_at_equal_azimuths() -> None:
    seen = views(3, batch=8, orbit=4)
    azimuth, elevation = seen.azimuth.view(2, 4), seen.elevation.view(2, 4)
    assert bool((elevation == elevation[:, :1]).all()) and elevation[0, 0] != elevation[1, 0]
    steps = torch.remainder(azimuth.diff(dim=1), 2 * math.pi)
    torch.testing.assert_close(steps, torch.full((2, 3), math.pi / 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.distance.view(2, 4), seen.distance[::4, None].expand(2, 4), rtol=0, atol=1e-5)
    with pytest.raises(ValidationError, match="whole sets of 4 views"):
        RandomCameras.Config(batch=6, orbit=4)
    assert RandomCameras.signals(RandomCameras.Config(batch=8, orbit=4)) == ([], ["camera", "multiview"])
