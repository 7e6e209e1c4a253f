"""GLB files held against the glTF 2.0 specification: layout, accessors, indices, pictures; base colour and surface."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from core.contracts import Context, Scene
from core.testing import reference
from plugins.export.glb import GlbExporter
from plugins.mesh.mesh import MeshGeometry
from plugins.shading.pbr import Pbr

SIZES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
KINDS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    """JSON and binary chunk, with what the container promises (glTF 2.0, section 4.4)."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and len(data) % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    binary, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0" and binary % 4 == 0 and 28 + size + binary == len(data)
    return document, data[28 + size :]


def values(document: dict[str, Any], blob: bytes, index: int) -> np.ndarray[Any, Any]:
    """An accessor's numbers, after checking its bounds, alignment, minimum and maximum (section 3.6.2)."""
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    size, width = SIZES[accessor["componentType"]], WIDTHS[accessor["type"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    assert start % size == 0 and view.get("byteOffset", 0) + view["byteLength"] <= len(blob)
    assert accessor.get("byteOffset", 0) + accessor["count"] * size * width <= view["byteLength"]
    found = np.frombuffer(blob, KINDS[accessor["componentType"]], accessor["count"] * width, start).reshape(-1, width)
    if "min" in accessor:
        np.testing.assert_allclose(found.min(0), accessor["min"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.max(0), accessor["max"], rtol=1e-6, atol=1e-6)
    return found


def picture(document: dict[str, Any], blob: bytes, texture: dict[str, Any]) -> Any:
    """An embedded picture, which must be the PNG or JPEG that it says it is."""
    image = document["images"][document["textures"][texture["index"]]["source"]]
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    found = Image.open(io.BytesIO(blob[start : start + view["byteLength"]]))
    assert image["mimeType"] == f"image/{found.format.lower()}" and found.format in ("PNG", "JPEG")
    return np.asarray(found.convert("RGB"), np.float32) / 255


@pytest.mark.parametrize("shaded", [False, True])
def test_a_painted_mesh_is_a_valid_glb(shaded: bool, tmp_path: Path) -> None:
    body = trimesh.creation.box((1.0, 2.0, 3.0))
    body.export(tmp_path / "box.ply")
    small = {"levels": 2, "finest": 8, "log2_table": 8, "hidden": 4, "texture": "image", "texture_size": 32}
    options = MeshGeometry.Config(path=str(tmp_path / "box.ply"), channels=5 if shaded else 3, **small)
    context = Context()
    scene = reference.scene(context)
    geometry = MeshGeometry(options, context)
    with torch.no_grad():
        geometry.texture.picture[0], geometry.texture.picture[1:3] = 2.0, -2.0
        geometry.texture.picture[3:] = 4.0
    material = Pbr(Pbr.Config(), context) if shaded else scene.material
    scene = Scene(geometry, material, scene.background, scene.renderer, name="box")
    (path,) = GlbExporter(GlbExporter.Config(texture=64), Context()).export(scene, tmp_path)
    document, blob = chunks(path.read_bytes())
    assert document["asset"]["version"] == "2.0"
    assert document["buffers"][0]["byteLength"] <= len(blob) <= document["buffers"][0]["byteLength"] + 3
    (mesh,) = document["meshes"]
    (primitive,) = mesh["primitives"]
    place = values(document, blob, primitive["attributes"]["POSITION"])
    normal = values(document, blob, primitive["attributes"]["NORMAL"])
    uv = values(document, blob, primitive["attributes"]["TEXCOORD_0"])
    index = values(document, blob, primitive["indices"])
    assert "min" in document["accessors"][primitive["attributes"]["POSITION"]]
    assert len(place) == len(normal) == len(uv) == len(geometry.corners)
    assert index.size % 3 == 0 and int(index.max()) < len(place)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-4)
    assert uv.min() >= 0 and uv.max() <= 1
    surface = document["materials"][primitive["material"]]["pbrMetallicRoughness"]
    base = picture(document, blob, surface["baseColorTexture"])
    sigmoid = 1 / (1 + np.exp(-np.array([2.0, -2, -2])))
    np.testing.assert_allclose(base.mean((0, 1)), sigmoid, atol=0.01)
    if shaded:
        rough = picture(document, blob, surface["metallicRoughnessTexture"])
        np.testing.assert_allclose(rough[..., 1:].mean((0, 1)), [0.08 + 0.92 * 0.982, 0.982], atol=0.01)
        assert surface.get("metallicFactor", 1.0) == surface.get("roughnessFactor", 1.0) == 1.0
    else:
        assert "metallicRoughnessTexture" not in surface and surface["metallicFactor"] == 0.0
    used = {view for accessor in document["accessors"] for view in [accessor["bufferView"]]}
    used |= {image["bufferView"] for image in document["images"]}
    assert used == set(range(len(document["bufferViews"])))
