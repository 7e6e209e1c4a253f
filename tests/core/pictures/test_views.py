"""Framing, cameras, and pose files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from core.asked import resized
from core.errors import UserError
from core.pictures import FRAME, read_views
from core.pictures.framing import bounding_box
from core.types import Cameras


def _rgba(path, box, shape=(90, 140), colour=(200, 60, 20)):
    values = np.zeros((*shape, 4), np.uint8)
    left, top, right, bottom = box
    values[top:bottom, left:right] = [*colour, 255]
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("share", [0.5, FRAME, 0.9, 1.0])
@pytest.mark.parametrize("box", [(20, 10, 60, 80), (70, 40, 139, 60), (5, 5, 25, 25)])
def test_the_bounding_box_takes_the_asked_share(tmp_path, share, box):
    views = read_views(_rgba(tmp_path / "a.png", box), size=128, frame=share)
    left, top, right, bottom = bounding_box(views.mask[0, ..., 0].numpy())
    longer = max(right - left, bottom - top)
    assert abs(longer - 128 * share) <= 1
    assert abs((left + right) / 2 - 64) <= 1 and abs((top + bottom) / 2 - 64) <= 1
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    assert abs(min(right - left, bottom - top) - longer * min(aspect, 1 / aspect)) <= 1.5


def test_colours_have_no_rim(tmp_path):
    views = read_views(_rgba(tmp_path / "a.png", (20, 10, 60, 80)), size=100)  # hidden pixels are black
    assert (views.rgb - torch.tensor([200, 60, 20]) / 255).abs().max() < 1e-3
    assert views.rgb.shape == (1, 100, 100, 3) and views.mask.shape == (1, 100, 100, 1)
    assert views.rgb.dtype == views.mask.dtype == torch.float32


def test_a_square_picture_stays_as_framed(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    views = read_views(tmp_path / "a.png", size=32, frame=None, background_removal="none", fov=35)
    assert torch.equal(views.rgb[0], torch.from_numpy(values).float() / 255) and views.mask.min() == 1
    assert views.cameras.fov_y[0].rad2deg() == pytest.approx(35)


def test_padding_to_a_square_keeps_the_focal_length(tmp_path):
    views = read_views(_rgba(tmp_path / "a.png", (60, 20, 80, 70)), size=140, frame=None, fov=40)
    assert bounding_box(views.mask[0, ..., 0].numpy()) == (60, 45, 80, 95)
    assert views.cameras.focal[0] == pytest.approx(0.5 * 90 / math.tan(math.radians(20)), rel=1e-6)


def test_the_camera_is_the_given_one(tmp_path):
    views = read_views(_rgba(tmp_path / "a.png", (60, 20, 80, 70)), size=64, elevation=20, azimuth=-30, distance=2.5)
    assert views.cameras.elevation[0].rad2deg() == pytest.approx(20, abs=1e-4)
    assert views.cameras.azimuth[0].rad2deg() == pytest.approx(-30, abs=1e-4)
    assert views.cameras.distance[0] == pytest.approx(2.5) and views.cameras.fov_y[0].rad2deg() == pytest.approx(40)


def test_a_list_of_pictures(tmp_path):
    paths = [_rgba(tmp_path / f"{n}.png", (40, 20, 80, 70), colour=(n, n, n)) for n in (10, 20, 30)]
    views = read_views(paths, azimuth=[0, 90, 180], elevation=10, size=48)
    assert len(views) == 3 and views.cameras.azimuth.rad2deg().abs().tolist() == pytest.approx([0, 90, 180], abs=1e-3)
    # Several pictures are not reframed: 40 of 140 columns stay 40 of 140.
    assert views.mask[0].sum(1).max() == pytest.approx(48 * 40 / 140, abs=0.5)
    assert views.rgb[:, 24, 24, 0].tolist() == pytest.approx([10 / 255, 20 / 255, 30 / 255], abs=1e-4)
    with pytest.raises(UserError, match="3 pictures were given, but 2 numbers for azimuth"):
        read_views(paths, azimuth=[0, 90], size=48)
    with pytest.raises(UserError, match="single picture only"):
        read_views(paths, azimuth=[0, 1, 2], mask=paths[0], size=48)


def test_cameras_json(tmp_path):
    for name in "ab":
        _rgba(tmp_path / f"{name}.png", (40, 20, 80, 70))
    views = {"fov": 50, "views": [{"file": "a.png", "azimuth": 0, "elevation": 20},
                                  {"file": "b.png", "azimuth": 90, "elevation": -10, "distance": 4, "fov": 30}]}  # fmt: skip
    (tmp_path / "cameras.json").write_text(json.dumps(views))
    made = read_views(tmp_path, size=32, distance=2.0)
    assert made.cameras.distance.tolist() == pytest.approx([2, 4])
    expected = [2 * math.atan(math.tan(math.radians(f) / 2) * 140 / 90) for f in (50, 30)]
    assert made.cameras.fov_y.tolist() == pytest.approx(expected)
    assert made.cameras.elevation.rad2deg().tolist() == pytest.approx([20, -10], abs=1e-4)
    again = read_views(tmp_path / "cameras.json", size=32, distance=2.0)
    assert torch.equal(again.cameras.c2w, made.cameras.c2w) and torch.equal(again.rgb, made.rgb)


def _transforms(folder, cameras, **more):
    frames = [{"file_path": f"./train/r_{n}", "transform_matrix": m.tolist()} for n, m in enumerate(cameras.c2w)]
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.69, "frames": frames} | more))


def test_nerf_synthetic_transforms(tmp_path):
    angles = torch.tensor([0.3, 2.0, 4.0])
    cameras = Cameras.orbit(angles, angles / 10, torch.full((3,), 4.03), torch.full((3,), 0.69), 100, 100)
    for n in range(3):
        _rgba(tmp_path / "train" / f"r_{n}.png", (40, 20, 80, 70), shape=(100, 100))
    _transforms(tmp_path, cameras)
    views = read_views(tmp_path, size=50)
    assert torch.allclose(views.cameras.c2w, cameras.c2w, atol=1e-6)
    assert views.cameras.fov_y.tolist() == pytest.approx([0.69] * 3) and views.cameras.height == 50
    wide = _rgba(tmp_path / "train" / "r_0.png", (40, 20, 80, 70), shape=(50, 100))  # the angle is the width's
    assert wide.exists() and read_views(tmp_path, size=50).cameras.fov_y[0] == pytest.approx(0.69)


def test_refused_poses(tmp_path):
    _rgba(tmp_path / "a.png", (40, 20, 80, 70))
    view = {"file": "a.png", "azimuth": 0, "elevation": 20}
    good = {"fov": 40, "distance": 3}
    cases = [
        (good | {"views": [view | {"azimuth": float("nan")}]}, "view 0: azimuth is nan, not a finite number"),
        (good | {"views": [view | {"elevation": 200}]}, "elevation is 200, but must lie in -90 to 90"),
        (good | {"views": [view | {"fov": "wide"}]}, "fov is 'wide', not a number"),
        (good | {"views": [view | {"distance": -1}]}, "distance is -1"),
        (good | {"views": [view | {"azimut": 3}]}, "'azimut' is not known"),
        (good | {"views": [{"file": "a.png", "azimuth": 1}]}, "elevation of a.png is missing"),
        (good | {"views": [view | {"file": "b.png"}]}, "there is no picture .*b.png"),
        (good | {"views": []}, "lists no pictures"),
        ({"camera_angle_x": 0.7, "frames": [{"file_path": "a", "transform_matrix": [[1, 0], [0, 1]]}]}, "no 4 x 4"),
        ({"camera_angle_x": 0.7, "frames": [{"file_path": "a", "transform_matrix": np.diag([2.0, 1, 1, 1]).tolist()}]},
         "no rotation with a position"),
        ({"camera_angle_x": float("inf"), "frames": [{}]}, "camera_angle_x is inf"),
    ]  # fmt: skip
    for content, sentence in cases:
        (tmp_path / "cameras.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=sentence) as caught:
            read_views(tmp_path, size=32)
        assert "\n" not in str(caught.value)
    (tmp_path / "cameras.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_views(tmp_path, size=32)


def test_refusals(tmp_path):
    path = _rgba(tmp_path / "in" / "a.png", (40, 20, 80, 70))
    (tmp_path / "empty").mkdir()
    cases = [
        ((tmp_path / "empty",), {}, "holds no pictures"),
        ((tmp_path / "in",), {}, "holds pictures but no cameras.json"),
        ((tmp_path / "none.png",), {}, "there is no picture"),
        ((tmp_path / "none.json",), {}, "there is no file"),
        ((path,), {"elevation": float("nan")}, "elevation is nan"),
        ((path,), {"fov": 400.0}, "fov is 400"),
        ((path,), {"frame": 1.5}, "share of the frame is 1.5"),
        ((path,), {"size": 0}, "size of the views is 0"),
        (([],), {}, "no picture was given"),
        ((_rgba(tmp_path / "speck.png", (40, 20, 42, 22)),), {}, "the object is 2 pixels in size"),
    ]
    for positional, named, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            read_views(*positional, **{"size": 32} | named)


def test_maps_are_cut_like_the_picture_and_normals_turned_to_the_world(tmp_path):
    """A sphere seen from 30 degrees to the side and 20 above: its maps as a camera would write them."""
    y, x = np.mgrid[1:-1:96j, -1:1:96j]
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    inside = x**2 + y**2 < 1
    facing = np.stack([x, y, z], -1) * inside[..., None]
    for name, values in {"normal": facing * 0.5 + 0.5, "depth": np.repeat(z[..., None], 3, -1)}.items():
        canvas = np.full((120, 160, 3), 0.5 if name == "normal" else 0.0)
        canvas[10:106, 40:136] = values
        Image.fromarray((canvas * 255).round().astype(np.uint8)).save(tmp_path / f"{name}.png")
    rgba = np.zeros((120, 160, 4), np.uint8)
    rgba[10:106, 40:136] = np.where(inside[..., None], 255, 0)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    maps = {"depth": tmp_path / "depth.png", "normals": tmp_path / "normal.png"}
    views = read_views(tmp_path / "a.png", elevation=20.0, azimuth=30.0, size=64, **maps)
    centre = views.normal[0, 32, 32]
    towards = torch.tensor([math.cos(0.349) * math.cos(0.524), math.cos(0.349) * math.sin(0.524), math.sin(0.349)])
    assert float(centre @ towards) > 0.995  # the middle of the sphere faces the camera
    right = views.normal[0, 32, 54] - views.normal[0, 32, 10]
    assert float(right @ views.cameras.c2w[0, :3, 0]) > 1.5
    sure = views.mask[0, ..., 0] > 0.99
    assert float((views.normal[0].norm(dim=-1)[sure] - 1).abs().max()) < 1e-5
    assert views.nearness[0, 32, 32] > 0.97 and views.nearness[0, 32, 10] < 0.6
    small = resized(views, 32)
    assert small.normal.shape == (1, 32, 32, 3) and float(small.normal[0, 16, 16] @ towards) > 0.99
    Image.new("L", (50, 50), 200).save(tmp_path / "other.png")
    with pytest.raises(UserError, match="depth map .* is 50 x 50 pixels, but its picture is 160 x 120"):
        read_views(tmp_path / "a.png", depth=tmp_path / "other.png")
    with pytest.raises(UserError, match="single picture only"):
        read_views([tmp_path / "a.png"] * 2, azimuth=[0.0, 90.0], elevation=[0.0, 0.0], **maps)
