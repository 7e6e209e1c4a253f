"""The pictures of a job as data: alone, and beside the views that guidance looks at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from core.asked import Asked, PictureConfig, resized, with_elevation
from core.config.loading import load_job
from core.contracts import Context, Step
from core.discovery import get_registry
from core.errors import UserError
from core.stages import build_task
from core.types import Cameras, Views
from plugins.cameras.given_views import GivenViews


def given(count: int = 3, size: int = 16) -> Views:
    rgb = torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(count, size, size, 1)
    mask[:, 4:12, 4:12] = 1
    return Views(rgb, mask, Cameras.turntable(torch.arange(count) * 1.0, 0.2, size))


def source(views: Views | None, **options: Any) -> GivenViews:
    asked = Asked("", "", None)  # type: ignore[arg-type]
    asked._views = views
    data = GivenViews(GivenViews.Config(**options), Context(parts={"asked": asked}))
    return data


def test_alone_a_batch_is_the_pictures_over_the_background() -> None:
    views = given()
    batch = source(views, batch=2, size=16, background=0.25).batch(Step(0, 10))
    assert len(batch["cameras"]) == 2 and batch["target"].shape == (2, 16, 16, 3)
    which = [int((views.cameras.c2w == c).flatten(1).all(1).nonzero()) for c in batch["cameras"].c2w]
    wanted = views.rgb * views.mask + 0.25 * (1 - views.mask)
    torch.testing.assert_close(batch["target"], wanted[which], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(batch["target-mask"], views.mask[which])


def test_every_picture_comes_up() -> None:
    data = source(given(), size=16)
    seen = {float(data.batch(Step(k, 40))["cameras"].azimuth[0]) for k in range(40)}
    assert len(seen) == 3
    whole = source(given(), size=16, batch=8).batch(Step(0, 1))["cameras"]
    assert len({round(float(azimuth), 3) for azimuth in whole.azimuth}) == len(whole) == 3


def test_a_job_without_pictures_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set image=FILE"):
        source(None).batch(Step(0, 1))


def test_smaller_pictures_keep_the_object_s_own_colour() -> None:
    """What lies outside the mask must not bleed into the object when it is resized."""
    views = given(1)
    rgb = torch.where(views.mask > 0, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    small = resized(Views(rgb, views.mask, views.cameras), 6)
    inside = small.mask[..., 0] > 0.05
    torch.testing.assert_close(small.rgb[inside], torch.tensor([1.0, 0.0, 0.0]).expand_as(small.rgb[inside]), rtol=0, atol=1e-4)
    assert small.cameras.height == small.cameras.width == 6


def test_losses_on_pictures_see_the_given_views_and_guidance_the_others(tmp_path: Path) -> None:
    path = tmp_path / "ball.png"
    pixels = torch.zeros(64, 64, 4, dtype=torch.uint8)
    pixels[16:48, 16:48] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    cameras = {"type": "random-cameras", "batch": 2, "size": 16}
    values: dict[str, Any] = {
        "task": "lift", "image": str(path), "picture": {"azimuth": 40, "elevation": 20}, "device": "cpu", "steps": 2,
        "geometry": {"type": "hash-grid", "levels": 3, "log2_table": 9, "finest": 16, "hidden": 8},
        "material": "plain", "background": "solid", "prompts": "same", "losses": {"image": 1, "mask": 1, "opacity": 1},
        "renderer": {"type": "volume", "samples": 8, "grid": 8, "update_every": 2, "warmup": 3},
        "data": {"type": "given-views", "cameras": cameras, "size": 24},
    }  # fmt: skip
    task: Any = build_task(load_job(values, [], get_registry()), get_registry(), 0, torch.device("cpu"))
    seen: dict[str, Any] = {}
    task.losses = {
        "image": lambda render, step: seen.setdefault("image", render).rgb.mean(),
        "mask": lambda render, step: seen.setdefault("mask", render).rgb.mean(),
        "opacity": lambda render, step: seen.setdefault("opacity", render).rgb.mean(),
    }
    task.update(Step(0, 2))
    task.training_step(Step(0, 2))
    assert seen["mask"] is seen["image"] and "target-mask" in seen["mask"].extras
    assert len(seen["opacity"].cameras) == 2 and "target" not in seen["opacity"].extras
    (azimuth,), (elevation,) = seen["image"].cameras.azimuth.rad2deg(), seen["image"].cameras.elevation.rad2deg()
    assert (round(float(azimuth)), round(float(elevation))) == (40, 20)
    middle = seen["image"].extras["target"][0, 12, 12]
    torch.testing.assert_close(middle, torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-2)
    assert task.title() == "ball"


def test_only_priors_that_look_are_handed_the_pictures() -> None:
    views, heard = given(), []
    asked = Asked("a ball", "", SimpleNamespace(texts=lambda p, c: [p] * len(c), away=lambda p, c: []))  # type: ignore[arg-type]
    asked._views = views

    class Hears:
        looks = sees_render = False

        def condition(self, texts: list[str], cameras: Any = None, views: Any = None) -> Any:
            heard.append((texts, views))
            return texts

        def opposite(self, told: Any, texts: list[str], cameras: Any = None) -> Any:
            return self.condition(texts, cameras)

        def away(self, told: Any, untold: Any) -> list[Any]:
            return []

    prior: Any = Hears()
    asked.conditions(prior, views.cameras)
    assert heard == [(["a ball"] * 3, None), ([""] * 3, None)]
    heard.clear()
    prior.looks = True
    asked.conditions(prior, views.cameras)
    assert heard[0][1] is views and heard[1][1] is None


def test_an_elevation_that_nobody_gave_is_estimated() -> None:
    views, told = given(1), PictureConfig(elevation=5)
    found = with_elevation(views, PictureConfig(), lambda seen: 33.0)
    assert float(found.cameras.elevation.rad2deg()) == pytest.approx(33.0, abs=1e-3)
    torch.testing.assert_close(found.cameras.azimuth, views.cameras.azimuth)
    torch.testing.assert_close(found.cameras.distance, views.cameras.distance)
    assert with_elevation(views, told, lambda seen: 33.0) is views
    assert with_elevation(views, PictureConfig(), lambda seen: None) is views


@pytest.mark.parametrize("elevation", [5.0, 45.0])
def test_the_family_sees_how_high_its_own_objects_are_seen_from(elevation: float) -> None:
    source = get_registry().find("data", "procedural").load()
    cameras = Cameras.turntable(torch.tensor([0.4]), torch.tensor(elevation).deg2rad().item(), 64)
    found = []
    for kind in ("chair", "race car", "corgi", "robot", "teapot", "house"):
        rgb = source.pictures_of(kind, None, cameras, 1)[0]
        seen = Views(rgb, torch.ones_like(rgb[..., :1]), cameras)
        found.append(get_registry().hooks.estimate_elevation(views=seen))
    assert abs(sum(found) / len(found) - elevation) < 10


def test_the_picture_s_defaults_are_those_of_reading() -> None:
    from core.pictures import FRAME

    assert PictureConfig().frame == FRAME
