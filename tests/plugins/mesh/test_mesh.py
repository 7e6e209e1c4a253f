"""The geometry ``mesh``: files as users have them, textures, deformation, and going on from an earlier stage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from core.contracts import Context, Scene, Step
from core.errors import UserError
from core.testing import check_component, reference
from core.testing.reference import cameras
from core.types import Mesh
from plugins.export.assets import TexturedConfig, textured_mesh
from plugins.mesh.mesh import MeshGeometry
from plugins.mesh.rasterizer import MeshRasterizer

SMALL = {"levels": 4, "finest": 24, "log2_table": 10, "hidden": 8}


def made(**options: Any) -> MeshGeometry:
    return MeshGeometry(MeshGeometry.Config(**{**SMALL, **options}), Context())


def saved(mesh: Any, path: Path) -> str:
    mesh.export(path)
    return str(path)


def box(extents: tuple[float, float, float] = (2.0, 4.0, 6.0)) -> Any:
    return trimesh.creation.box(extents)


def square(texture: bool = True, tiled: bool = False) -> Any:
    """A square with UVs; its picture is red on the left, blue on the right."""
    vertices = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    uv = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]) * (2 if tiled else 1)
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4, 0], picture[:, 4:, 2] = 255, 255
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture) if texture else None)
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


@pytest.mark.parametrize("options", [{}, {"texture": "image", "texture_size": 32}, {"deform": True}])
def test_it_keeps_its_contract(options: dict[str, Any]) -> None:
    assert len(check_component("geometry", "mesh", options={**SMALL, **options})) >= 12


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_a_file_is_centred_scaled_and_turned_upright(kind: str, tmp_path: Path) -> None:
    mesh = box()
    mesh.apply_translation([5, 6, 7])
    found = made(path=saved(mesh, tmp_path / f"box.{kind}")).surface()
    assert float(found.vertices.norm(dim=-1).max()) == pytest.approx(0.9, abs=1e-5)
    torch.testing.assert_close(found.vertices.amax(0), -found.vertices.amin(0), atol=1e-5, rtol=0)
    sides = found.vertices.amax(0) * np.sqrt(14) / 0.9
    wanted = [1.0, 2.0, 3.0] if kind == "ply" else [3.0, 1.0, 2.0]  # the file's y is up, its z the front
    assert sides.tolist() == pytest.approx(wanted, abs=1e-4)


def test_as_it_lies_and_upwards_by_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(box(), tmp_path / "box.obj")
    with caplog.at_level(logging.WARNING, "maquette"):
        found = made(path=path, normalize=False, up="z").surface().vertices
    assert found.amax(0).tolist() == [1.0, 2.0, 3.0] and "reaches beyond" in caplog.text


@pytest.mark.parametrize(("content", "match"), [
    (None, "there is no file"),
    ("this is no mesh", "cannot be read as a mesh|has no faces"),
    ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "has no faces|cannot be read"),
    ("v 0 0 0\nv 1 0 0\nv nan 1 0\nf 1 2 3\n", "1 vertices that are not finite"),
    ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "all 1 faces .* have no area"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_sentence(content: str | None, match: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.obj"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=match) as refusal:
        made(path=str(path))
    assert "thing.obj" in str(refusal.value) and "\n" not in str(refusal.value)


def test_degenerate_flipped_and_several_are_mended_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 2 0 0\nf 1 2 3\nf 1 2 4\n"
    (tmp_path / "flat.obj").write_text(flat)
    inverted = box()
    inverted.faces = inverted.faces[:, ::-1]
    both = trimesh.Scene([box(), trimesh.creation.icosphere(1)])
    with caplog.at_level(logging.WARNING, "maquette"):
        assert len(made(path=str(tmp_path / "flat.obj")).surface().faces) == 1
        found = made(path=saved(inverted, tmp_path / "inverted.ply")).surface()
        assert len(made(path=saved(both, tmp_path / "both.glb")).surface().faces) == 12 + 80
    assert found.normals is not None
    assert bool(((found.vertices * found.normals).sum(-1) > 0).all())
    for words in ("1 faces without area", "inside out", "holds 2 objects"):
        assert words in caplog.text


def test_own_uvs_are_kept_and_missing_ones_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(square(), tmp_path / "square.glb")
    kept = made(path=path, texture="image", texture_size=16).surface()
    assert kept.uv is not None
    assert sorted(map(tuple, kept.uv.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with caplog.at_level(logging.WARNING, "maquette"):
        new = made(path=saved(box(), tmp_path / "box.ply"), texture="image", texture_size=64)
    assert "has no UVs; it is unwrapped" in caplog.text
    assert len(new.uv) == len(new.corners) >= 14 and len(new.positions) == 8
    assert float(new.uv.min()) >= 0 and float(new.uv.max()) <= 1


def test_a_picture_is_looked_up_by_uv() -> None:
    geometry = made(texture="image", texture_size=16)
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    geometry.texture.load_state_dict({"picture": picture})
    uv = torch.tensor([[0.5 / 16, 1 - 0.5 / 16], [15.5 / 16, 0.5 / 16], [1 + 0.5 / 16, 2 - 0.5 / 16]])
    found = geometry.features(torch.zeros(3, 3), uv)
    torch.testing.assert_close(found, torch.stack([picture[:, 0, 0], picture[:, 15, 15], picture[:, 0, 0]]))
    with pytest.raises(UserError, match="needs UVs"):
        geometry.features(torch.zeros(3, 3))


@pytest.mark.parametrize("texture", ["image", "field"])
def test_the_files_own_colours_can_be_the_start(texture: str, tmp_path: Path) -> None:
    path = saved(square(), tmp_path / "square.glb")
    geometry = made(path=path, texture=texture, texture_size=32, own_colors=True)
    mesh = geometry.surface()
    assert mesh.uv is not None
    inner = mesh.vertices * 0.5
    colours = torch.sigmoid(geometry.features(inner, 0.25 + 0.5 * mesh.uv)).detach()
    red = mesh.uv[:, 0] < 0.5
    assert bool((colours[red, 0] > 0.8).all()) and bool((colours[~red, 2] > 0.8).all())


def test_colours_that_are_missing_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An OBJ whose picture is gone, and one without any."""
    path = tmp_path / "lost.obj"
    path.write_text("mtllib lost.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n")
    (tmp_path / "lost.mtl").write_text("newmtl a\nmap_Kd nowhere.png\n")
    with caplog.at_level(logging.WARNING, "maquette"):
        geometry = made(path=str(path), own_colors=True)
    assert "neither a texture that can be read nor colours" in caplog.text
    assert len(geometry.surface().faces) == 1


def test_deforming_moves_split_corners_together_and_its_losses_reach_it(tmp_path: Path) -> None:
    geometry = made(path=saved(box(), tmp_path / "box.ply"), texture="image", texture_size=64, deform=True)
    assert geometry.shift is not None and geometry.shift.shape == (8, 3)
    render: Any = None
    with torch.no_grad():
        geometry.shift[3] += 0.1
    moved = geometry.surface().vertices
    assert int(((moved - geometry.positions[geometry.corners]).abs() > 0.05).all(1).sum()) >= 2
    for signal in ("umbrella", "face-normals"):
        (grad,) = torch.autograd.grad(geometry.extra(signal, render, Step(0, 1)).square().sum(), geometry.shift)
        assert bool(grad.isfinite().all())
    assert made().extra("umbrella", render, Step(0, 1)).requires_grad is False


class Coloured(reference.Ball):
    """A ball that is red in front and blue behind."""

    def field(self, points: torch.Tensor) -> dict[str, torch.Tensor]:
        side = torch.sign(points[:, :1]) * 4
        return {**super().field(points), "features": torch.cat([side, 0 * side - 4, -side], -1)}

    def mesh(self, resolution: int) -> Mesh:
        raise NotImplementedError


@pytest.mark.parametrize("texture", ["field", "image"])
def test_an_earlier_stage_hands_over_its_surface_and_colours(texture: str) -> None:
    context = Context()
    scene = reference.scene(context)
    scene = Scene(Coloured(None, context), scene.material, scene.background, scene.renderer)
    geometry = made(texture=texture, texture_size=64, faces=2000, resolution=32)
    geometry.start_from(scene)
    mesh = geometry.surface()
    assert 200 < len(mesh.faces) <= 2000
    assert float((mesh.vertices.norm(dim=-1) - 0.5).abs().max()) < 0.02
    ahead = mesh.vertices[:, 0].abs() > 0.2
    colours = torch.sigmoid(geometry.features(mesh.vertices, mesh.uv)).detach()[ahead]
    front = mesh.vertices[ahead, 0] > 0
    assert float((colours[front, 0] > 0.8).float().mean()) > 0.95
    assert float((colours[~front, 2] > 0.8).float().mean()) > 0.95
    assert float(colours[:, 1].mean()) < 0.1


def test_nothing_is_taken_from_what_has_no_surface() -> None:
    class Nothing(reference.Ball):
        def mesh(self, resolution: int) -> Mesh:
            raise NotImplementedError

        def sdf(self, points: torch.Tensor) -> torch.Tensor:
            return points.norm(dim=-1) + 1

    with pytest.raises(UserError, match="Nothing has no surface"):
        made().init_from(Nothing())


def test_exported_meshes_keep_the_users_uvs_and_hold_what_was_learned(tmp_path: Path) -> None:
    geometry = made(path=saved(square(), tmp_path / "square.glb"), texture="image", texture_size=16, own_colors=True)
    context = Context()
    scene = reference.scene(context)
    scene = Scene(geometry, scene.material, scene.background, scene.renderer)
    mesh = textured_mesh(scene, TexturedConfig(texture=64))
    assert mesh is not None and mesh.uv is not None and mesh.texture is not None
    assert torch.equal(mesh.uv, geometry.surface().uv) and torch.equal(mesh.faces, geometry.triangles)
    assert mesh.texture[:, :28, 0].mean() > 0.9 and mesh.texture[:, 36:, 2].mean() > 0.9
    assert mesh.texture[:, :28, 2].mean() < 0.1


def test_a_changed_file_is_told_from_the_checkpoints(tmp_path: Path) -> None:
    path = saved(box(), tmp_path / "box.ply")
    state = made(path=path).state_dict()
    made(path=path).load_state_dict(state)
    with pytest.raises(UserError, match="12 faces .* 80: the file is another one now"):
        made(path=saved(trimesh.creation.icosphere(1), tmp_path / "box.ply")).load_state_dict(state)


def test_it_is_drawn_with_its_texture() -> None:
    context = Context()
    reference.scene(context)
    geometry = MeshGeometry(MeshGeometry.Config(**SMALL), context)
    context.parts["geometry"] = geometry
    seen = MeshRasterizer(MeshRasterizer.Config(), context)(cameras(24, 2), Step(0, 1))
    (grad,) = torch.autograd.grad(seen.rgb.sum(), geometry.texture.table)
    assert float(grad.abs().max()) > 0
