"""Figures of novel views on pictures whose answers are known, the plot, and the given objects."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.testing import check_component
from plugins.metrics.eval_views import FAR, TURNS, by_angle, decibel, score
from plugins.metrics.given import ELEVATION, given_objects
from plugins.metrics.plot import line_plot


@pytest.mark.parametrize("name", ["eval-views", "eval-image"])
def test_the_commands_keep_their_contract(name: str) -> None:
    assert check_component("command", name)


def pictures(count: int = len(TURNS)) -> torch.Tensor:
    return torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(0))


def test_true_views_are_right_and_swapped_ones_are_not() -> None:
    truth = pictures()
    mean = truth.mean(0)
    right = score("a", truth.clone(), truth, mean)
    assert right["azimuth"] == 1.0 and right["psnr"] == pytest.approx(100.0)
    around = score("a", truth.roll(3, 0), truth, mean)  # every one of the eight shows its neighbour
    assert around["azimuth"] == 0.0
    far = [k for k, turn in enumerate(TURNS) if FAR <= turn <= 360 - FAR]
    wanted = [-10 * math.log10(float((truth[0] - truth[k]).square().mean())) for k in far]
    assert right["copied"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-3)
    noisy = score("a", truth + 0.1, truth, mean)
    assert noisy["psnr"] == pytest.approx(20.0, abs=1e-3)


def test_both_directions_count_for_an_angle() -> None:
    row = [float(turn) for turn in TURNS]
    found = by_angle([row, row])
    assert len(found) == 13 and found[0] == 0.0 and found[-1] == 180.0
    assert found[1:-1] == pytest.approx([180.0] * 11)  # the mean of a turn and of its opposite


def test_decibels() -> None:
    assert decibel(torch.tensor([0.01, 1.0])).tolist() == pytest.approx([20.0, 0.0], abs=1e-5)


def test_a_plot_shows_each_curve_in_its_colour(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    line_plot(path, [0, 1, 2, 3], {"rising": [10.0, 12.0, 14.0, 16.0], "falling": [16.0, 13.0, 12.0, 10.0]}, "x", "dB")
    image = Image.open(path).convert("RGB")
    seen = {image.getpixel((x, y)) for x in range(80, 730, 2) for y in range(30, 380)}
    for color in ((0x1F, 0x6F, 0xB2), (0xC8, 0x55, 0x3D)):
        assert min(sum(abs(a - b) for a, b in zip(color, p, strict=True)) for p in seen) < 30  # type: ignore[arg-type]


def test_the_given_objects_are_sixteen_unseen_ones(tmp_path: Path) -> None:
    from plugins.procedural.splits import split_of

    listed = given_objects(None, 0)
    assert len(listed) == 16 and all(split_of(one.source.object.seed) == "test" for one in listed)
    one = listed[0]
    rgb, mask = one.seen([0.0, 180.0], 32)
    assert rgb.shape == (2, 32, 32, 3) and 0.05 < float(mask.mean()) < 0.9
    cameras = one.cameras([90.0])
    assert float(cameras.azimuth.rad2deg()) == pytest.approx(one.azimuth + 90, abs=1e-3)
    assert float(cameras.elevation.rad2deg()) == pytest.approx(ELEVATION, abs=1e-3)


def test_settings_are_chosen_by_other_objects_than_those_that_measure() -> None:
    from plugins.metrics import given
    from plugins.procedural.splits import is_held_out, split_of

    folder = Path(given.__file__).parent
    chosen, measured = (given_objects(folder / f"{n}.yaml", 0) for n in ("validation", "image"))
    assert all(split_of(one.source.object.seed) == "test" for one in chosen)
    assert not {one.source.object.seed for one in chosen} & {one.source.object.seed for one in measured}
    pairs = [[(o.source.object.category, o.source.object.color) for o in listed] for listed in (chosen, measured)]
    assert not set(pairs[0]) & set(pairs[1])
    assert [is_held_out(*pair) for pair in pairs[0]] == [True] * 8 + [False] * 8


def test_a_written_picture_is_the_object_on_nothing(tmp_path: Path) -> None:
    one = given_objects(None, 1)[0]
    image = torch.from_numpy(__import__("numpy").asarray(Image.open(one.write(tmp_path))).copy()).float() / 255
    rgb, mask = one.seen([0.0], 256)
    torch.testing.assert_close(image[..., 3:], mask[0], rtol=0, atol=3e-3)
    over = image[..., :3] * image[..., 3:] + 0.5 * (1 - image[..., 3:])
    torch.testing.assert_close(over, rgb[0], rtol=0, atol=6e-3)


def test_a_list_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("objects: [mug]\n")
    with pytest.raises(UserError, match="a list 'objects' of mappings"):
        given_objects(path, 0)
