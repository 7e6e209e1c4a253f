"""The classical mask against procedural renders; the ways to a mask and their order; colours at the edges."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.pictures.classical import remove_background
from core.pictures.masking import object_mask
from core.pictures.matting import cleaned, soft_edges
from core.pictures.reading import Picture, read_picture
from core.types import Cameras
from plugins.procedural.objects import make_object
from plugins.procedural.tracer import render

SIZE = 112
Y, X = np.mgrid[0:SIZE, 0:SIZE] / SIZE
GRADED = np.stack([0.35 + 0.3 * Y + 0.05 * X, 0.4 + 0.25 * Y, 0.55 + 0.2 * Y * Y], -1)
KINDS = [("mug", "red"), ("chair", "blue"), ("lighthouse", None), ("robot", "yellow"), ("guitar", "green")]


def _seen(kind, colour, n):
    cameras = Cameras.turntable(torch.tensor([0.7 * n]), math.radians(20), SIZE)
    one = make_object(9000 + n, kind, colour)
    seen = render([one], cameras.c2w.numpy(), math.radians(40), SIZE, SIZE, samples=3)
    mask = seen["mask"][0].astype(np.float64)
    return seen["rgb"][0] - 0.5 * (1 - mask[..., None]), mask  # the object alone, multiplied by its mask


@pytest.fixture(scope="module")
def objects():
    return [_seen(kind, colour, n) for n, (kind, colour) in enumerate(KINDS)]


def _picture(front, mask, behind, noise=0.0):
    mixed = front + behind * (1 - mask[..., None]) + noise * np.random.default_rng(1).normal(size=(SIZE, SIZE, 3))
    return (np.round(mixed.clip(0, 1) * 255) / 255).astype(np.float32)


@pytest.mark.parametrize("behind", ["grey", "graded", "noisy"])
def test_classical_masks_of_renders(objects, behind):
    for (front, mask), kind in zip(objects, KINDS, strict=True):
        rgb = _picture(front, mask, 0.5 if behind == "grey" else GRADED, 0.012 if behind == "noisy" else 0.0)
        found, truth = remove_background(rgb, "x"), mask > 0.5
        share = ((found > 0.5) & truth).sum() / ((found > 0.5) | truth).sum()
        assert share > 0.95, (kind, share)
        if behind != "noisy":
            assert np.abs(found - mask).mean() < 0.005, kind  # soft edges: their coverage, not just their place


def test_a_large_picture_is_told_from_its_background_as_a_small_one():
    y, x = np.mgrid[0:900, 0:700]
    disc = np.clip(200 - np.hypot(x - 300, y - 500) + 0.5, 0, 1)
    rgb = (0.9 - 0.2 * y[..., None] / 900) * (1 - disc[..., None]) + np.array([0.7, 0.2, 0.1]) * disc[..., None]
    found = remove_background(rgb.astype(np.float32), "x")
    assert np.abs(found - disc).mean() < 1e-3 and found.sum() == pytest.approx(math.pi * 200**2, rel=2e-3)


def test_compression_leaves_no_fringe(objects, tmp_path):
    for (front, mask), kind in zip(objects[:3], KINDS[:3], strict=True):
        image = Image.fromarray(np.uint8(255 * _picture(front, mask, GRADED + 0.2)))
        image.resize((3 * SIZE, 3 * SIZE), Image.Resampling.BILINEAR).save(tmp_path / "a.jpg", quality=85)
        found, own = object_mask(read_picture(tmp_path / "a.jpg"), None, "auto")
        truth = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((3 * SIZE, 3 * SIZE), Image.Resampling.BILINEAR))
        both, either = ((found > 0.5) & (truth > 0.5)).sum(), ((found > 0.5) | (truth > 0.5)).sum()
        # Enlarged and compressed: the truth is blurred itself.
        assert both / either > 0.92 and not own, (kind, both / either)


def test_several_parts_and_holes_are_kept():
    rgb = np.full((80, 80, 3), 0.8, np.float32)
    rgb[10:30, 10:30], rgb[45:75, 40:70], rgb[55:65, 50:60] = 0.1, [0.9, 0.1, 0.1], 0.8
    found = remove_background(rgb, "x") > 0.5
    assert found[10:30, 10:30].all() and found[45:55, 40:70].all() and not found[57:63, 52:58].any()
    assert found.sum() == 400 + 900 - 100


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: np.full((64, 64, 3), 0.5), "nothing stands out"),
        (lambda: np.repeat(np.random.default_rng(0).random((64, 64, 1)), 3, -1), "not plain enough"),
        (lambda: np.pad(np.zeros((390, 390, 3)), ((5, 5), (5, 5), (0, 0)), constant_values=1.0), "nearly everything"),
    ],
)
def test_it_says_when_it_cannot(make, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        remove_background(make().astype(np.float32), "photo.png")
    assert str(caught.value).startswith("photo.png: ") and "\n" not in str(caught.value)


def test_the_edge_is_the_mixed_share():
    cover = np.clip(np.tile(np.linspace(-8, 9, 50), (20, 1)), 0, 1)
    rgb = cover[..., None] * np.array([0.9, 0.2, 0.1]) + (1 - cover[..., None]) * np.array([0.1, 0.4, 0.8])
    assert np.abs(soft_edges(rgb.astype(np.float32), cover > 0.5, 3) - cover).max() < 1e-5


def test_no_halo_is_left_at_the_edges():
    y, x = np.mgrid[0:60, 0:60]
    mask = np.clip(20 - np.hypot(x - 30, y - 30) + 0.5, 0, 1).astype(np.float32)
    own = np.array([0.8, 0.3, 0.1], np.float32)
    mixed = own * mask[..., None] + np.float32(1.0) * (1 - mask[..., None])
    assert np.abs(cleaned(mixed, mask, straight=False) - own).max() < 1e-6
    hidden = np.where(mask[..., None] > 0, own, np.float32(0.0))
    assert np.abs(cleaned(hidden, mask, straight=True) - own).max() < 1e-6


def _rgba(tmp_path, alpha):
    values = np.full((20, 20, 4), 200, np.uint8)
    values[..., 3] = alpha
    path = tmp_path / "a.png"
    Image.fromarray(values).save(path)
    return read_picture(path)


def test_real_alpha_is_the_mask_unless_a_mask_is_given(tmp_path):
    alpha = np.zeros((20, 20), np.uint8)
    alpha[4:12, 4:12] = 255
    picture = _rgba(tmp_path, alpha)
    mask, own = object_mask(picture, None, "auto")
    assert own and np.array_equal(mask, alpha / 255)
    Image.fromarray(alpha.T[::-1].copy()).save(tmp_path / "m.png")
    assert np.array_equal(object_mask(picture, tmp_path / "m.png", "auto")[0], alpha.T[::-1] / 255)
    assert object_mask(picture, None, "none")[0].min() == 1


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="transparent throughout"):
        object_mask(_rgba(tmp_path, 0), None, "auto")
    opaque = Picture(np.full((20, 20, 3), 0.5, np.float32), None, (20, 20), tmp_path / "o.png")
    with pytest.raises(UserError, match="no transparent background"):
        object_mask(opaque, None, "alpha")
    with pytest.raises(UserError, match="Did you mean 'classical'"):
        object_mask(opaque, None, "clasical")
    with pytest.raises(UserError, match="rembg is not installed|weights u2net.onnx are not on disk"):
        object_mask(opaque, None, "rembg")


def test_rembg_is_asked_only_when_its_weights_are_there(tmp_path, monkeypatch):
    asked = []
    fake = types.ModuleType("rembg")
    fake.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    fake.new_session = lambda name: asked.append(name)
    fake.remove = lambda image, session, only_mask: Image.fromarray(np.uint8(np.asarray(image)[..., 0] > 100) * 255)
    monkeypatch.setitem(sys.modules, "rembg", fake)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    rgb = np.full((40, 40, 3), 0.2, np.float32)
    rgb[10:30, 10:30] = 0.9
    picture = Picture(rgb, None, (40, 40), tmp_path / "p.png")
    with pytest.raises(UserError, match="never downloaded"):
        object_mask(picture, None, "rembg")
    assert object_mask(picture, None, "auto")[0].sum() == pytest.approx(400) and not asked  # classical
    (tmp_path / "u2net.onnx").write_bytes(b"weights")
    assert np.array_equal(object_mask(picture, None, "auto")[0] > 0.5, rgb[..., 0] > 0.5) and asked == ["u2net"]
