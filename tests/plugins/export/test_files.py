"""Files as other programs read them: axes, colours, containers; and every exporter's way with an empty scene."""

from __future__ import annotations

import json
import logging
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from core.contracts import Context
from core.errors import UserError
from core.types import Mesh
from plugins.export import turntable
from plugins.export.assets import TexturedConfig
from plugins.export.gallery import GalleryExporter, gallery_row
from plugins.export.glb import GlbExporter
from plugins.export.obj import ObjExporter, obj_text
from plugins.export.ply import PlyExporter
from plugins.export.preview import PreviewExporter, around, load_glb, render_mesh
from plugins.export.sheet import SheetExporter
from plugins.export.turntable import TurntableExporter
from plugins.export.views import depth_picture, fitted, look, orbit, over_white

SMALL = {"resolution": 48, "texture": 256, "faces": 3000}
RED, GREEN, BLUE = (0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (0.15, 0.25, 0.9)


def marked(points):
    """A ball with a bump to the front (+x), a smaller one to the left (+y) and a spike up (+z)."""
    parts = [
        points.norm(dim=-1) - 0.4,
        (points - points.new_tensor([0.5, 0, 0])).norm(dim=-1) - 0.2,
        (points - points.new_tensor([0, 0.45, 0])).norm(dim=-1) - 0.12,
        (points - points.new_tensor([0, 0, 0.6])).norm(dim=-1) - 0.15,
    ]
    return torch.stack(parts).min(0).values


def marks(points):
    """Red front, green left, blue top, grey elsewhere."""
    colour = points.new_tensor([0.5, 0.5, 0.5]).repeat(len(points), 1)
    for axis, limit, paint in ((0, 0.45, RED), (1, 0.45, GREEN), (2, 0.5, BLUE)):
        colour[points[:, axis] > limit] = points.new_tensor(paint)
    return colour


@pytest.fixture
def scene(field_scene):
    return field_scene(marked, marks, name="marked", prompt="a marked ball: front, left & up")


@pytest.fixture
def empty(field_scene):
    return field_scene(lambda p: p.norm(dim=-1) + 1, name="nothing", softness=0.0)


def export(cls, scene, folder, **options):
    return list(cls(cls.Config(**options), Context()).export(scene, folder))


def glb_json(path):
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack("<IIIII", data[:20])
    assert (magic, version, length, kind) == (0x46546C67, 2, len(data), 0x4E4F534A)
    return json.loads(data[20 : 20 + size]), data[20 + size + 8 :]


def test_glb_is_y_up_and_faces_z(scene, tmp_path):
    (path,) = export(GlbExporter, scene, tmp_path, **SMALL)
    body = trimesh.load(path, force="mesh", process=False)
    low, high = body.bounds
    np.testing.assert_allclose(high, [0.57, 0.75, 0.70], atol=0.02)  # left +x, up +y, front +z
    np.testing.assert_allclose(low, [-0.4, -0.4, -0.4], atol=0.02)
    assert body.volume > 0  # wound outwards
    colours = np.asarray(body.visual.to_color().vertex_colors)[:, :3] / 255
    for axis, paint in ((2, RED), (0, GREEN), (1, BLUE)):
        np.testing.assert_allclose(colours[body.vertices[:, axis].argmax()], paint, atol=0.05)


def test_glb_material_follows_the_standard(scene, tmp_path):
    (path,) = export(GlbExporter, scene, tmp_path, **SMALL)
    document, binary = glb_json(path)
    (mesh,), (material,) = document["meshes"], document["materials"]
    surface = material["pbrMetallicRoughness"]
    assert surface["metallicFactor"] == 0
    assert surface["roughnessFactor"] == pytest.approx(0.9)
    assert surface["baseColorFactor"] == [1, 1, 1, 1]
    assert set(mesh["primitives"][0]["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}
    image = document["images"][document["textures"][surface["baseColorTexture"]["index"]]["source"]]
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    png = binary[start : start + view["byteLength"]]
    assert image["mimeType"] == "image/png"
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (document["nodes"][0]["name"], mesh["name"]) == ("marked", "marked")
    assert "matrix" not in document["nodes"][0]


def test_the_file_looks_like_the_volume(scene, tmp_path):
    """The GLB drawn by a rasteriser against the field drawn by a volume renderer, from the same cameras."""
    (path,) = export(GlbExporter, scene, tmp_path, **{**SMALL, "resolution": 80, "texture": 512})
    mesh = load_glb(path)
    cameras = around(mesh, torch.tensor([15.0, 75.0, 200.0]), 20.0, 64)
    flat, volume = render_mesh(mesh, cameras), look(scene, cameras)
    solid = (flat.opacity[..., 0] > 0) == (volume.opacity[..., 0] > 0.5)
    assert float(solid.float().mean()) > 0.985
    both = (flat.opacity[..., 0] > 0) & (volume.opacity[..., 0] > 0.95)
    error = (flat.rgb - volume.rgb)[both].abs().amax(-1)
    assert float((error < 0.1).float().mean()) > 0.93
    assert float((flat.depth - volume.depth)[both].abs().median()) < 0.02


def test_obj_carries_the_same_picture(scene, tmp_path):
    paths = export(ObjExporter, scene, tmp_path, **SMALL)
    assert [p.name for p in paths] == ["marked.png", "marked.mtl", "marked.obj"]
    body = trimesh.load(tmp_path / "marked.obj", force="mesh", process=False)
    np.testing.assert_allclose(body.bounds[1], [0.57, 0.75, 0.70], atol=0.02)
    assert body.visual.material.image.size == (256, 256)
    colours = np.asarray(body.visual.to_color().vertex_colors)[:, :3] / 255
    np.testing.assert_allclose(colours[body.vertices[:, 1].argmax()], BLUE, atol=0.05)
    text = (tmp_path / "marked.obj").read_text()
    assert "mtllib marked.mtl" in text
    assert "map_Kd marked.png" in (tmp_path / "marked.mtl").read_text()


def test_ply_is_binary_with_normals_and_colours(scene, tmp_path):
    (path,) = export(PlyExporter, scene, tmp_path, resolution=48)
    header = path.read_bytes()[:600].split(b"end_header")[0].decode()
    assert "format binary_little_endian" in header
    assert all(f"property float {n}" in header for n in ("nx", "ny", "nz"))
    body = trimesh.load(path, process=False)
    np.testing.assert_allclose(body.bounds[1], [0.70, 0.57, 0.75], atol=0.02)  # the project's axes: z up
    assert body.is_watertight
    assert body.volume > 0
    for axis, paint in enumerate((RED, GREEN, BLUE)):
        top = body.vertices[:, axis].argmax()
        np.testing.assert_allclose(body.visual.vertex_colors[top, :3] / 255, paint, atol=0.03)
        assert body.vertex_normals[top, axis] > 0.9


def test_the_mesh_is_made_once(scene, tmp_path):
    export(GlbExporter, scene, tmp_path, **SMALL)
    asked = scene.geometry.asked
    export(ObjExporter, scene, tmp_path, **SMALL)
    export(PreviewExporter, scene, tmp_path, size=32, **SMALL)
    assert scene.geometry.asked == asked


def test_video_has_its_frames_and_can_be_read(scene, tmp_path):
    import imageio_ffmpeg

    (path,) = export(TurntableExporter, scene, tmp_path, frames=6, size=48, fps=12)
    frames = imageio_ffmpeg.read_frames(str(path))
    info = next(frames)
    pictures = [np.frombuffer(f, np.uint8).reshape(48, 48, 3) for f in frames]
    assert (info["size"], info["codec"], info["pix_fmt"].split("(")[0]) == ((48, 48), "h264", "yuv420p")
    assert len(pictures) == 6
    assert pictures[0][0, 0].min() > 245  # over white, although the scene's background is not
    middle = pictures[0][20:34, 18:30].reshape(-1, 3).astype(float).mean(0)
    assert middle[0] > 1.5 * middle[2]  # the red front comes first


def test_video_of_the_mesh_with_normals(scene, monkeypatch):
    monkeypatch.setattr(turntable.TexturedConfig, "model_validate", lambda _: TexturedConfig(**SMALL))
    exporter = TurntableExporter(TurntableExporter.Config(frames=2, size=32, of="mesh", normals=True), Context())
    frames = exporter.pictures(scene)
    assert frames.shape == (2, 32, 64, 3)
    of_volume = TurntableExporter(TurntableExporter.Config(frames=2, size=32, normals=True), Context()).pictures(scene)
    apart = np.abs(frames[:, :, 32:].astype(float) - of_volume[:, :, 32:])
    assert np.median(apart) < 6
    assert apart.mean() < 12  # normals from the same frame, apart from the outline


def test_without_ffmpeg_there_is_a_gif_and_a_reason(scene, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "missing"))
    with caplog.at_level(logging.WARNING, "maquette"):
        (path,) = export(TurntableExporter, scene, tmp_path, frames=4, size=32)
    assert path.suffix == ".gif"
    assert "ffmpeg" in caplog.text
    assert not path.with_suffix(".mp4").exists()
    with Image.open(path) as film:
        assert (film.n_frames, film.size) == (4, (32, 32))


def test_sheet_and_gallery(scene, tmp_path):
    (path,) = export(SheetExporter, scene, tmp_path, size=32, columns=3)
    with Image.open(path) as sheet:
        assert sheet.width > 3 * 32
        assert sheet.height > 3 * 32
    rgb, depth = export(GalleryExporter, scene, tmp_path, size=64)
    assert (rgb.name, depth.name) == ("marked-rgb.png", "marked-depth.png")
    pictures = [np.asarray(Image.open(p)) for p in (depth, rgb)]
    assert pictures[0].shape == (64, 64, 3)
    assert gallery_row(scene.prompt, *pictures).size == (192, 64)
    with pytest.raises(ValueError, match="at least one"):
        gallery_row("nothing to show")


def test_near_is_lighter_than_far_and_nothing_is_white(scene):
    class Options:
        elevation, distance, fov, fit = 15.0, 2.8, 40.0, True

    render = look(scene, orbit(Options, torch.tensor([0.0]), 48, fitted(scene, Options)))
    depth = render.depth[render.opacity > 0.9]
    picture = depth_picture(render, float(depth.min()), float(depth.max())).sum(-1)[..., None]
    solid = (render.opacity > 0.99).numpy()
    order = np.argsort(render.depth.numpy()[solid])
    lightness = picture[solid][order]
    assert lightness[:20].mean() > lightness[-20:].mean() + 1
    assert picture[render.opacity.numpy() < 1e-3].min() > 2.98
    white = over_white(scene, render)
    assert white[render.opacity.numpy()[..., 0] < 1e-3].min() > 0.98


def test_the_frame_fits_the_object(scene):
    class Options:
        elevation, distance, fov, fit = 15.0, 2.8, 40.0, True

    solid = look(scene, orbit(Options, torch.arange(0, 360, 45), 64, fitted(scene, Options))).opacity[..., 0] > 0.5
    rows, cols = solid.any(0).any(1).nonzero(), solid.any(0).any(0).nonzero()
    assert int(rows.min()) > 0
    assert int(rows.max()) < 63
    assert int(cols.min()) > 0
    assert int(cols.max()) < 63
    assert max(int(rows.max() - rows.min()), int(cols.max() - cols.min())) > 46


@pytest.mark.parametrize("cls", [GlbExporter, ObjExporter, PlyExporter, PreviewExporter])
def test_an_empty_scene_gives_a_message_and_no_mesh_file(empty, tmp_path, caplog, cls):
    with caplog.at_level(logging.WARNING, "maquette"):
        assert export(cls, empty, tmp_path, resolution=16) == []
    assert "the surface is empty" in caplog.text
    assert "was not written" in caplog.text
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (TurntableExporter, {"frames": 2, "size": 32}),
        (TurntableExporter, {"frames": 2, "size": 32, "of": "mesh"}),
        (SheetExporter, {"columns": 2, "size": 32}),
        (GalleryExporter, {"size": 32}),
    ],
)
def test_an_empty_scene_still_has_its_pictures(empty, tmp_path, cls, options):
    for path in export(cls, empty, tmp_path, **options):
        assert path.stat().st_size > 0


def test_a_textured_mesh_of_the_geometry_is_kept(scene, tmp_path):
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    own = Mesh(corners, faces, uv=corners[:, :2], texture=torch.rand(8, 8, 3))
    scene.geometry = type("Own", (type(scene.geometry),), {"mesh": lambda self, resolution: own})(marked, marks)
    (path,) = export(GlbExporter, scene, tmp_path, **SMALL)
    back = load_glb(path)
    np.testing.assert_allclose(back.vertices, corners, atol=1e-6)
    np.testing.assert_allclose(back.uv, own.uv, atol=1e-6)
    np.testing.assert_allclose(back.texture, own.texture, atol=1 / 255)


def test_a_mesh_with_colours_alone_is_painted_with_them(scene, tmp_path):
    sphere = trimesh.creation.icosphere(3, 0.5)
    vertices = torch.tensor(np.array(sphere.vertices), dtype=torch.float32)
    own = Mesh(vertices, torch.tensor(np.array(sphere.faces)), colors=(vertices + 0.5).clamp(0, 1))

    from core.config.base import Config
    from core.contracts import Geometry

    class Coloured(Geometry):
        def mesh(self, resolution):
            return own

    scene.geometry = Coloured(Config(), Context())
    (path,) = export(GlbExporter, scene, tmp_path, **SMALL)
    mesh = load_glb(path)
    body = trimesh.load(path, force="mesh", process=False)
    colours = np.asarray(body.visual.to_color().vertex_colors)[:, :3] / 255
    assert np.abs(colours - (mesh.vertices.numpy() + 0.5).clip(0, 1)).mean() < 0.03


def test_a_file_without_a_texture_is_refused(tmp_path):
    trimesh.creation.box().export(tmp_path / "bare.glb")
    with pytest.raises((ValueError, UserError), match="no textured mesh"):
        load_glb(tmp_path / "bare.glb")


def test_the_obj_writer_takes_as_many_python_steps_for_many_faces_as_for_few() -> None:
    def steps(count: int) -> int:
        generator = torch.Generator().manual_seed(0)
        faces = torch.randint(count, (count, 3), generator=generator)
        points = torch.rand(count, 3, generator=generator)
        mesh = Mesh(points, faces, normals=points, uv=points[:, :2])
        seen = 0

        def trace(frame, event, argument):
            nonlocal seen
            seen += frame.f_code.co_filename.endswith("obj.py")
            return trace

        sys.settrace(trace)
        try:
            text = obj_text(mesh, "a", "a.mtl")
        finally:
            sys.settrace(None)
        assert text.count("\nf ") == text.count("\nv ") == count
        assert f"f {faces[0, 0] + 1}/{faces[0, 0] + 1}/{faces[0, 0] + 1} " in text
        return seen

    assert steps(10) == steps(500) > 0
