"""Splat files: the standard layout read by an independent reader, and what is wrong with other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from core.errors import UserError
from core.types import Points, Splats
from plugins.splats.ply_format import ply_bytes, read_ply

from splat_tasks import ball_scene, build, splat_set  # isort: skip


def cloud(count: int = 12, degree: int = 2) -> Splats:
    g = torch.Generator().manual_seed(3)
    turn = torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=-1)
    return Splats(
        torch.randn(count, 3, generator=g), torch.rand(count, 3, generator=g) + 0.01, turn,
        torch.rand(count, generator=g) * 0.9 + 0.05, torch.randn(count, (degree + 1) ** 2, 3, generator=g),
    )  # fmt: skip


def independent(path: Path) -> Any:
    """The vertex table as trimesh's reader sees it."""
    return trimesh.load(path, process=False).metadata["_ply_raw"]["vertex"]["data"]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_layout_is_the_standard_one(tmp_path: Path, degree: int) -> None:
    splats, path = cloud(degree=degree), tmp_path / "a.ply"
    path.write_bytes(ply_bytes(splats))
    table = independent(path)
    rest = 3 * ((degree + 1) ** 2 - 1)
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{k}" for k in range(rest)),
             "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]  # fmt: skip
    assert list(table.dtype.names) == names and all(table.dtype[n] == np.dtype("<f4") for n in names)
    assert path.read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 12\n")
    take = lambda *which: np.stack([table[n] for n in which], -1)  # noqa: E731
    np.testing.assert_allclose(take("x", "y", "z"), splats.means, rtol=1e-6)
    np.testing.assert_allclose(np.exp(take("scale_0", "scale_1", "scale_2")), splats.scales, rtol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-table["opacity"])), splats.opacities, rtol=1e-5)
    np.testing.assert_allclose(take("rot_0", "rot_1", "rot_2", "rot_3"), splats.rotations, rtol=1e-6)
    np.testing.assert_allclose(take("f_dc_0", "f_dc_1", "f_dc_2"), splats.sh[:, 0], rtol=1e-6)
    for channel in range(3):  # all of red, then green, then blue
        for k in range(rest // 3):
            np.testing.assert_allclose(table[f"f_rest_{channel * (rest // 3) + k}"], splats.sh[:, 1 + k, channel], rtol=1e-6)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    splats, path = cloud(), tmp_path / "a.ply"
    path.write_bytes(ply_bytes(splats))
    found = read_ply(path)
    assert isinstance(found, Splats)
    for name in ("means", "scales", "rotations", "opacities", "sh"):
        torch.testing.assert_close(getattr(found, name), getattr(splats, name), rtol=1e-5, atol=1e-6)


def test_the_exporter_writes_what_the_geometry_loads(tmp_path: Path) -> None:
    made = ball_scene(100)
    made.geometry.logits.data[:40] = -9.0  # too faint to be kept
    (path,) = build("exporter", "splat-ply", made.geometry.context).export(made, tmp_path / "assets")
    assert path.name == "ball-splats.ply"
    loaded = splat_set(file=str(path), degree=1)
    assert len(loaded.means) == 60 and loaded.harmonics.shape == (60, 3, 3)
    torch.testing.assert_close(loaded.splats().means, made.geometry.means[40:].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loaded.splats().opacities, made.geometry.splats().opacities[40:].detach())
    made.geometry.logits.data.fill_(-9.0)
    with pytest.raises(UserError, match="no Gaussian"):
        list(build("exporter", "splat-ply", made.geometry.context).export(made, tmp_path))


@pytest.mark.parametrize("binary", [True, False])
def test_a_cloud_of_points_is_a_start_too(tmp_path: Path, binary: bool) -> None:
    places = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    colours = (np.random.default_rng(1).random((20, 4)) * 255).astype(np.uint8)
    path = tmp_path / "points.ply"
    path.write_bytes(trimesh.exchange.ply.export_ply(trimesh.PointCloud(places, colours), encoding="binary" if binary else "ascii"))
    found = read_ply(path)
    assert isinstance(found, Points) and found.colors is not None
    np.testing.assert_allclose(found.positions, places, rtol=1e-5)
    np.testing.assert_allclose(found.colors, colours[:, :3] / 255, atol=1e-6)
    assert len(splat_set(file=str(path)).means) == 20


def broken(what: str, path: Path) -> None:
    data = ply_bytes(cloud(degree=0))
    edits = {
        "no such file": None, "is no PLY file": b"hello", "is cut off": data[:-8],
        "lacks the properties opacity": data.replace(b"property float opacity\n", b"property float haze\n"),
        "lacks the properties rot_3": data.replace(b"property float rot_3\n", b"property float w\n"),
        "expected a number": data.replace(b"property float x\n", b"property list uchar int x\n"),
        "without a known format": data.replace(b"binary_little_endian", b"middle_endian"),
        "are not finite": data[:-4] + np.float32(np.nan).tobytes(),
        "properties f_rest_": data.replace(b"property float nx\n", b"property float f_rest_0\n"),
        "first element is 'face'": data.replace(b"element vertex", b"element face 3\nproperty float q\nelement vertex"),
    }  # fmt: skip
    if edits[what] is not None:
        path.write_bytes(edits[what])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "what",
    ["no such file", "is no PLY file", "is cut off", "lacks the properties opacity", "lacks the properties rot_3",
     "expected a number", "without a known format", "are not finite", "properties f_rest_", "first element is 'face'"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.ply"
    broken(what, path)
    with pytest.raises(UserError) as error:
        splat_set(file=str(path))
    said = str(error.value).lower()
    assert what.lower() in said and "a.ply" in said and "\n" not in said


def test_an_empty_file_has_nothing_to_start_from(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply_bytes(cloud(0)))
    with pytest.raises(UserError, match="nothing to start from"):
        splat_set(file=str(path))
