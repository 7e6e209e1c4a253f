"""Every method's preset is a job without a mistake: names, values and signals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core import losses
from core.config.loading import load_job
from core.contracts import Step
from core.discovery import get_registry
from core.types import Cameras, Render

STAGES = {
    "dreamfusion-sd": 1, "dreamfusion-if": 1, "magic3d": 2, "prolificdreamer": 3, "sjc": 1, "latent-nerf": 2,
    "fantasia3d": 3, "textmesh": 2, "hifa": 1, "sdi": 1, "instruct-nerf2nerf": 2,
    "control4d-static": 2, "gaussiandreamer": 1, "luciddreamer": 1, "dreamgaussian-sd": 2, "mvdream": 1,
}  # fmt: skip
FOLLOWS_PICTURES = ("instruct-nerf2nerf", "control4d-static")


@pytest.mark.parametrize("preset", STAGES)
def test_it_is_a_valid_job(preset: str, tmp_path: Path) -> None:
    extra = {"prompt": "a red mug", "image": str(tmp_path) if preset in FOLLOWS_PICTURES else None}
    assert len(load_job(preset, (), get_registry(), extra).stages) == STAGES[preset]


def seen(depth: list[float], opacity: list[float], variance: list[float]) -> Render:
    angle = torch.zeros(1)
    cameras = Cameras.orbit(angle, angle, torch.full((1,), 3.0), torch.full((1,), 0.7), 4, 4)
    shaped = [torch.tensor(x).view(1, 4, 4, 1) for x in (depth, opacity)]
    extras = {"depth_variance": torch.tensor(variance)}
    return Render(torch.zeros(1, 4, 4, 3), shaped[1], cameras, depth=shaped[0], extras=extras)


def test_z_variance_counts_only_rays_that_see_the_object() -> None:
    render = seen([3.0] * 16, [0.8, 0.4, *[0.0] * 14], [0.08, 9.0, *[0.0] * 14])
    assert float(losses.z_variance(render, Step(0, 1))) == pytest.approx(0.1 / 16)


def test_centre_depth_is_lower_with_the_object_in_the_middle() -> None:
    middle = [float(k in (5, 6, 9, 10)) for k in range(16)]
    corner = [float(k in (0, 1, 4)) for k in range(16)]
    inside, aside = (float(losses.centre_depth(seen([2.5] * 16, o, [0.0] * 16), Step(0, 1))) for o in (middle, corner))
    assert inside == pytest.approx(-torch.tensor(1.5).log().item(), abs=1e-6)
    assert aside > inside
