"""Every kind of file is written here and read back; what cannot be used is refused in one sentence."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.pictures import reading
from core.pictures.reading import read_mask, read_picture

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
ORIENTATIONS = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 6: lambda a: np.rot90(a, 3),
                8: lambda a: np.rot90(a, 1)}  # fmt: skip


def _save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_rotation_equals_the_rotated_picture(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(_save(tmp_path / "a.png", Image.fromarray(PIXELS), exif=exif))
    upright = ORIENTATIONS[orientation](PIXELS)
    assert np.array_equal(picture.rgb, upright.astype(np.float32) / 255)
    assert picture.size == (upright.shape[1], upright.shape[0])


def test_sixteen_bits_equal_eight(tmp_path):
    grey = PIXELS[..., 0]
    deep = read_picture(_save(tmp_path / "deep.png", Image.fromarray(grey.astype(np.uint16) * 257)))
    flat = read_picture(_save(tmp_path / "flat.png", Image.fromarray(grey)))
    assert np.abs(deep.rgb - flat.rgb).max() < 1e-6
    between = Image.fromarray(np.full((9, 9), 0x8080, np.uint16))
    assert read_picture(_save(tmp_path / "b.tif", between)).rgb[0, 0, 0] == pytest.approx(0x8080 / 65535)


def test_sixteen_bit_colour_equals_eight(tmp_path):
    import imageio.v3 as iio  # Pillow writes no 16-bit colour

    pytest.importorskip("tifffile")
    wide = PIXELS.astype(np.uint16) * 257
    iio.imwrite(tmp_path / "deep.tif", wide, plugin="tifffile", photometric="rgb")
    assert np.abs(read_picture(tmp_path / "deep.tif").rgb - PIXELS / 255).max() <= 1 / 255


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.fromarray(np.tile(np.uint8([[0, 1, 2]]), (9, 4)), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    plain = read_picture(_save(tmp_path / "p.png", image))
    assert plain.alpha is None and np.array_equal(plain.rgb[0, :3], np.eye(3))
    holed = read_picture(_save(tmp_path / "t.png", image, transparency=1))
    assert np.array_equal(holed.alpha[0, :3], [1, 0, 1])


@pytest.mark.parametrize("mode", ["L", "LA", "1", "RGB", "RGBA"])
def test_modes(tmp_path, mode):
    grey = np.where(PIXELS[..., 0] > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(grey).convert(mode)
    picture = read_picture(_save(tmp_path / "m.png", image))
    assert picture.alpha is None  # opaque throughout, whether there is a channel for it or not
    assert np.array_equal(picture.rgb, np.repeat(grey[..., None] / 255.0, 3, -1).astype(np.float32))


def test_grey_with_alpha(tmp_path):
    alpha = PIXELS[..., 1]
    image = Image.merge("LA", [Image.fromarray(PIXELS[..., 0]), Image.fromarray(alpha)])
    picture = read_picture(_save(tmp_path / "la.png", image))
    assert np.allclose(picture.alpha, alpha / 255) and np.allclose(picture.rgb[..., 2], PIXELS[..., 0] / 255)


def test_cmyk_colours(tmp_path):
    inks = np.zeros((16, 48, 4), np.uint8)
    inks[:, :16, 0], inks[:, 16:32, 1], inks[:, 32:, 3] = 255, 255, 255  # cyan, magenta, black
    picture = read_picture(_save(tmp_path / "c.jpg", Image.fromarray(inks, "CMYK"), quality=100))
    for x, colour in {8: (0, 1, 1), 24: (1, 0, 1), 40: (0, 0, 0)}.items():
        assert np.abs(picture.rgb[8, x] - colour).max() < 0.03


def test_colour_profile_is_applied(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = read_picture(_save(tmp_path / "s.png", Image.fromarray(PIXELS), icc_profile=profile.tobytes()))
    assert np.abs(same.rgb - PIXELS / 255).max() <= 1.01 / 255
    broken = read_picture(_save(tmp_path / "b.png", Image.fromarray(PIXELS), icc_profile=b"not a profile"))
    assert np.array_equal(broken.rgb, PIXELS.astype(np.float32) / 255)


def test_animation_gives_its_first_frame(tmp_path, caplog):
    frames = [Image.new("RGB", (10, 10), c) for c in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.INFO, "maquette"):
        picture = read_picture(tmp_path / "a.gif")
    assert np.allclose(picture.rgb[0, 0], [1, 0, 0]) and "3 frames" in caplog.text


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_huge_pictures_shrink_by_area(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(reading, "MAX_SIDE", 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit would raise here
    ramp = np.repeat(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], 100, 0)
    picture = read_picture(_save(tmp_path / f"h.{suffix}", Image.fromarray(np.repeat(ramp, 3, 2)), **({} if suffix == "png" else {"quality": 95})))
    assert picture.rgb.shape == (20, 60, 3) and picture.size == (300, 100)
    assert np.abs(picture.rgb[10, :, 0] - (np.arange(60) + 0.5) / 60).max() < 0.03
    assert Image.MAX_IMAGE_PIXELS == 100


def test_shrinking_does_not_let_hidden_colours_in(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_SIDE", 16)
    values = np.zeros((64, 64, 4), np.uint8)
    values[..., 1] = 255  # hidden: green
    values[10:50, 10:50] = [255, 0, 0, 255]
    picture = read_picture(_save(tmp_path / "a.png", Image.fromarray(values)))
    assert picture.rgb[picture.alpha > 0.05][:, 1].max() < 0.02


def test_mask_is_its_brightness_or_its_alpha(tmp_path):
    disc = np.zeros((12, 20), np.uint8)
    disc[3:9, 5:15] = 255
    grey = _save(tmp_path / "g.png", Image.fromarray(disc))
    clear = _save(tmp_path / "a.png", Image.merge("LA", [Image.new("L", (20, 12), 0), Image.fromarray(disc)]))
    for path in (grey, clear):
        assert np.array_equal(read_mask(path, (20, 12), (12, 20)), disc / 255)
    with pytest.raises(UserError, match=r"20 x 12 pixels, but its picture is 12 x 20"):
        read_mask(grey, (12, 20), (20, 12))
    with pytest.raises(UserError, match="is empty: no pixel is brighter"):
        read_mask(_save(tmp_path / "e.png", Image.new("L", (20, 12), 9)), (20, 12), (12, 20))


def test_refusals(tmp_path, monkeypatch):
    whole = _save(tmp_path / "whole.png", Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:4000])
    photo = _save(tmp_path / "photo.jpg", Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:1500])
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("a red mug")
    _save(tmp_path / "tiny.png", Image.new("RGB", (7, 30)))
    nan = np.full((9, 9), np.nan, np.float32)
    _save(tmp_path / "nan.tif", Image.fromarray(nan))
    said = {"none.png": "there is no picture", "cut.png": "damaged or cut off", "cut.jpg": "damaged or cut off",
            "zero.png": "0 bytes", "text.png": "is no picture that can be read", "tiny.png": "7 x 30 pixels",
            "nan.tif": "no finite numbers", "": "is a folder"}  # fmt: skip
    for name, sentence in said.items():
        with pytest.raises(UserError, match=sentence) as caught:
            read_picture(tmp_path / name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(reading, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="64 x 64 pixels; at most"):
        read_picture(whole)
