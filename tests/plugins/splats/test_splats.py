"""Geometry ``splats``: what it starts as, learning rates, growing under the optimiser, checkpoints, surfaces."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import checkpoint
from core.contracts import Context, Step
from core.errors import ConfigError, UserError
from core.meshing.distance import signed_distance
from core.meshing.surface import extract
from core.spherical_harmonics import Y0
from core.testing import check_component, reference
from core.types import Cameras, Points
from plugins.splats.initial import splats_of, turn_to

from splat_tasks import Fit, ball_scene, loop_of, scene, splat_set  # isort: skip

GROWS = {"every": 3, "start": 1, "end": "100%", "share": 0.3, "split": 0.1}


@pytest.mark.parametrize("options", [{}, {"degree": 2}, {"growth": {"every": 2}}])
def test_it_keeps_its_contract(options: dict[str, Any]) -> None:
    assert len(check_component("geometry", "splats", options={"count": 50} | options)) >= 15


def test_it_starts_as_a_ball_of_grey_gaussians() -> None:
    made = splat_set(count=3000, radius=0.7, opacity=0.3)
    splats = made.splats()
    distance = splats.means.norm(dim=-1)
    assert float(distance.detach().max()) <= 0.7
    # Evenly in the volume: the share within half the radius is an eighth.
    assert float((distance < 0.35).float().mean()) == pytest.approx(1 / 8, abs=0.02)
    torch.testing.assert_close(splats.opacities, torch.full((3000,), 0.3))
    assert float((splats.sh * Y0).abs().max()) < 0.06
    assert not torch.equal(splats.means, splat_set(1, count=3000, radius=0.7).means)


def test_gaussians_lie_flat_on_a_surface() -> None:
    normals = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    normals[0], normals[1] = torch.tensor([0.0, 0, -1]), torch.tensor([0.0, 0, 1])
    splats = splats_of(Points(normals, normals, normals.abs()), 0.5, 1.0, 1)
    from core.kernels.splatting.projection import rotation_matrices

    torch.testing.assert_close(rotation_matrices(turn_to(normals))[..., 2], normals, atol=1e-5, rtol=0)
    assert splats.sh.shape == (200, 4, 3) and bool((splats.scales[:, 2] < splats.scales[:, 0] / 2).all())
    torch.testing.assert_close(0.5 + Y0 * splats.sh[:, 0], normals.abs())


@pytest.mark.parametrize("name", ["position", "scale", "rotation", "opacity", "color", "harmonics"])
def test_every_learning_rate_is_read(name: str) -> None:
    """One Adam step moves a parameter by its rate: a thousandth of the share, a thousandth of the way (D3)."""
    part = {"position": "means", "scale": "log_scales", "rotation": "quaternions", "opacity": "logits",
            "color": "colors", "harmonics": "harmonics"}[name]  # fmt: skip
    moved = []
    for share in (1.0, 1e-3):
        task = Fit(degree=1, **{f"{name}_lr": share})
        task.geometry.quaternions.data += 0.3  # a Gaussian as round as at the start has no gradient there
        task.geometry.log_scales.data += torch.tensor([0.5, -0.5, 0.0])
        before = getattr(task.geometry, part).detach().clone()
        loop_of(task).take(0)
        moved.append(float((getattr(task.geometry, part) - before).abs().max()))
    assert moved[0] == pytest.approx(0.02, rel=1e-2) and moved[1] == pytest.approx(2e-5, rel=1e-2)


def test_growing_keeps_the_moments_and_the_rule_of_the_optimiser() -> None:
    task = Fit(growth=GROWS)
    loop = loop_of(task)
    for index in range(2):
        loop.take(index)
    old = task.geometry
    means, moment = old.means.detach().clone(), loop.scheduled.raw.state[old.means]["exp_avg"].clone()
    assert int(old.views.sum()) > 0 and float(old.gradient.sum()) > 0
    loop.take(2)
    new = task.geometry
    assert len(new.means) > len(means) and int(new.views.sum()) == 0 and new.gradient.shape == (len(new.means),)
    for group in loop.scheduled.raw.param_groups:  # D9: 3DGS systems lose these
        assert (group["betas"], group["eps"]) == ((0.8, 0.97), 1e-12)
        (parameter,) = group["params"]
        assert parameter is getattr(new, next(n for n, p in new.named_parameters() if p is parameter))
        state = loop.scheduled.raw.state[parameter]
        assert state["exp_avg"].shape == parameter.shape and float(state["step"]) == 3
    found = loop.scheduled.raw.state[new.means]["exp_avg"]
    fresh = (found == 0).all(-1)
    stayed = int((~fresh).sum())
    assert 0 < stayed <= len(means) and bool(fresh.any())
    assert not torch.equal(found[:stayed], moment[:stayed])  # the third step moved them on
    loop.take(3)
    assert all(bool(torch.isfinite(p).all()) for p in new.parameters())


def test_opacity_resets_lower_what_is_opaque_and_forget_its_moments() -> None:
    task = Fit(opacity=0.6, growth={"every": 0, "reset_every": 2, "start": 0, "end": 10, "reset_to": 0.05})
    loop = loop_of(task)
    loop.take(0)
    assert float(torch.sigmoid(task.geometry.logits).min()) > 0.5
    loop.take(1)
    assert float(torch.sigmoid(task.geometry.logits).max()) <= 0.05 + 1e-6
    assert float(loop.scheduled.raw.state[task.geometry.logits]["exp_avg"].abs().max()) == 0
    assert float(loop.scheduled.raw.state[task.geometry.means]["exp_avg"].abs().max()) > 0


@pytest.mark.parametrize("pause", [1, 4, 7])
def test_stopping_and_resuming_is_bit_identical(tmp_path: Path, pause: int) -> None:
    """With growth, resets and progressive degrees; the pause is before, between and after rounds of growing."""
    options = {"growth": GROWS | {"reset_every": 4}, "degree": 1, "degree_every": 4}
    whole = Fit(**options)
    loop = loop_of(whole)
    whole_losses = [loop.take(k).losses["error"] for k in range(10)]
    parts = Fit(**options)
    loop = loop_of(parts)
    losses = [loop.take(k).losses["error"] for k in range(pause)]
    checkpoint.save(tmp_path / "step-000001", parts, checkpoint.Position(pause), loop.state())
    again = Fit(**options)
    _, state = checkpoint.load(tmp_path / "step-000001", again)
    loop = loop_of(again)
    loop.load_state(state)
    losses += [loop.take(k).losses["error"] for k in range(pause, 10)]
    assert losses == whole_losses
    first, second = whole.state_dict(), again.state_dict()
    assert len(first["geometry.means"]) > 60 and first.keys() == second.keys()
    for name, value in first.items():
        assert value.numpy().tobytes() == second[name].numpy().tobytes(), name


def test_degrees_join_in_one_by_one_and_stay_in_the_checkpoint() -> None:
    made = splat_set(degree=2, degree_every=10)
    for index, count in ((0, 1), (9, 1), (10, 4), (20, 9), (90, 9)):
        made.update(Step(index, 100))
        assert made.splats().sh.shape[1] == count
    other = splat_set(degree=2, degree_every=10)
    other.load_state_dict(made.state_dict())
    assert other.splats().sh.shape[1] == 9  # an export knows no step (D10)


def test_a_state_of_any_number_of_rows_loads_and_a_torn_one_does_not() -> None:
    small, large = splat_set(count=7), splat_set(count=30, degree=0)
    small.load_state_dict(large.state_dict())
    assert torch.equal(small.means, large.means) and len(small.gradient) == 30
    torn = large.state_dict() | {"logits": torch.zeros(29)}
    with pytest.raises(RuntimeError, match="logits"):
        splat_set(count=7).load_state_dict(torn)
    with pytest.raises(RuntimeError, match="harmonics"):
        splat_set(degree=2).load_state_dict(large.state_dict())


def test_a_set_that_became_empty_or_not_finite_is_one_sentence() -> None:
    task = Fit(opacity=0.02, growth=GROWS | {"faint": 0.9})
    loop = loop_of(task)
    with pytest.raises(UserError, match=r"step 2: geometry 'splats' is empty, every one of its 60 Gaussians"):
        for index in range(3):
            loop.take(index)
    made = splat_set()
    made.log_scales.data[3, 1] = math.nan
    with pytest.raises(UserError, match=r"step 5: geometry 'splats' has log_scales that are not finite"):
        made.adapt(Step(5, 10), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"count": 0}, "count"), ({"degree": 4}, "degree"), ({"growth": {"start": "1.5"}}, "start"), ({"growth": {"evry": 1}}, "evry")],
)
def test_impossible_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        splat_set(**options)


def test_the_mesh_is_the_surface_that_is_seen_in_its_colours() -> None:
    made = ball_scene()
    mesh = made.geometry.mesh(64)
    cell = 2 / 63
    radius = mesh.vertices.norm(dim=-1)
    assert float((radius - 0.5).abs().max()) < 1.5 * cell and float((radius - 0.5).abs().mean()) < 0.5 * cell
    probe = torch.tensor([[0.0, 0, 0], [0.9, 0, 0]])
    assert float(signed_distance(probe, mesh)[0]) < -0.4 < 0.3 < float(signed_distance(probe, mesh)[1])  # closed, outwards
    assert mesh.colors is not None
    front, back = mesh.colors[mesh.vertices[:, 0] > 0.2].mean(0), mesh.colors[mesh.vertices[:, 0] < -0.2].mean(0)
    torch.testing.assert_close(front, torch.tensor([0.9, 0.1, 0.2]), atol=0.03, rtol=0)
    torch.testing.assert_close(back, torch.tensor([0.1, 0.9, 0.2]), atol=0.03, rtol=0)


def test_the_mesh_of_nothing_visible_is_empty() -> None:
    made = ball_scene()
    made.geometry.logits.data.fill_(-9.0)
    mesh = made.geometry.mesh(32)
    assert mesh.vertices.shape == (0, 3) and mesh.faces.shape == (0, 3)
    assert extract(made.geometry, 1.0, 32) is None


def test_features_are_the_colour_that_plain_gives_back_and_follow_the_set() -> None:
    made = ball_scene()
    at = torch.tensor([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])  # the last is seen from nowhere
    found = made.material(made.geometry.features(at), at, at, None)
    torch.testing.assert_close(found[:2], torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.9, 0.2]]), atol=0.03, rtol=0)
    assert bool(torch.isfinite(found).all())
    with torch.no_grad():
        made.geometry.colors.zero_()
    found = made.material(made.geometry.features(at), at, at, None)
    torch.testing.assert_close(found, torch.full((3, 3), 0.5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("how", ["scene", "geometry", "splats"])
def test_it_starts_from_another_representation(how: str) -> None:
    """From a field's surface with the material's colours, from a mesh, or from another set as it is."""
    made = splat_set(count=400)
    if how == "splats":
        other = splat_set(count=33, degree=1)
        made.init_from(other)
        assert len(made.means) == 33 and made.harmonics.shape == (33, 0, 3)
        torch.testing.assert_close(made.splats().scales, other.splats().scales)
        return
    ball = reference.scene(Context())
    made.start_from(ball) if how == "scene" else made.init_from(ball.geometry)
    splats = made.splats()
    assert len(splats) == 400 and float((splats.means.norm(dim=-1) - 0.5).abs().max()) < 0.03
    if how == "scene":
        wanted = torch.sigmoid(2 * splats.means[:, 0])
        torch.testing.assert_close(0.5 + Y0 * splats.sh[:, 0, 0], wanted, atol=0.05, rtol=0)
    else:
        torch.testing.assert_close(0.5 + Y0 * splats.sh[:, 0], torch.full((400, 3), 0.5), atol=1e-4, rtol=0)


def test_it_cannot_start_from_nothing() -> None:
    empty = ball_scene().geometry
    empty.logits.data.fill_(-9.0)

    class Fog(type(empty)):  # type: ignore[misc]
        """No set of splats to take over as it is."""

    made, fog = splat_set(), reference.Ball()
    fog.radius.data.fill_(-1.0)
    fog.mesh = lambda resolution: empty.mesh(32)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="cannot start from Ball: it has no surface"):
        made.init_from(fog)


def test_fitting_approaches_the_pictures() -> None:
    task = Fit(count=150, growth=GROWS | {"every": 10})
    loop = loop_of(task, 60)
    losses = [loop.take(k).losses["error"] for k in range(60)]
    assert np.mean(losses[-5:]) < 0.1 * losses[0]


def test_the_renderer_draws_any_picture_shape_over_the_background() -> None:
    """D11: width is not height, and the principal point is not the centre."""
    made = ball_scene()
    full = torch.ones(2)
    views = Cameras.orbit(torch.tensor([0.0, math.pi]), 0 * full, 3 * full, 0.7 * full, 24, 60)
    views = Cameras(views.c2w, views.fov_y, 24, 60, torch.tensor([[15.0, 12.0], [45.0, 12.0]]))
    with torch.no_grad():
        seen = made.renderer(views)
    assert seen.rgb.shape == (2, 24, 60, 3) and seen.normal is not None and seen.depth is not None
    for view, column, colour in ((0, 15, [0.9, 0.1, 0.2]), (1, 45, [0.1, 0.9, 0.2])):
        assert float(seen.opacity[view, 12, column]) > 0.95
        assert seen.rgb[view, 12, column].tolist() == pytest.approx(colour, abs=0.05)
        assert float(seen.depth[view, 12, column]) == pytest.approx(2.5, abs=0.05)
        towards = torch.tensor([1.0 if view == 0 else -1.0, 0.0, 0.0])
        torch.testing.assert_close(seen.normal[view, 12, column], towards, atol=0.15, rtol=0)
        assert seen.rgb[view, 12, 59 - column].tolist() == pytest.approx([0.5, 0.5, 0.5], abs=1e-3)
        assert float(seen.depth[view, 12, 59 - column]) == 0
    covered = (seen.opacity[0, ..., 0] > 0.5).nonzero().float()
    height, width = (covered.amax(0) - covered.amin(0) + 1).tolist()
    assert abs(height - width) <= 1  # a ball is round


def test_renderer_and_exporter_keep_their_contracts() -> None:
    assert len(check_component("renderer", "splat-rasterizer")) >= 20
    assert len(check_component("renderer", "splat-rasterizer", options={"kernel": "reference"})) >= 20
    assert len(check_component("exporter", "splat-ply")) >= 5


def test_a_scene_of_splats_exports_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Textured meshes, sheet and film. D17: no viewer and no display, and the OBJ file has its colours as a picture."""
    import trimesh
    from PIL import Image

    from core.discovery import get_registry
    from core.testing.check import make_options

    made = ball_scene()
    registry, written = get_registry(), {}
    monkeypatch.setitem(sys.modules, "open3d", None)  # whoever imports it fails
    monkeypatch.delenv("DISPLAY", raising=False)
    textured = {"resolution": 48, "texture": 128, "faces": 1500}
    options = {"glb": textured, "obj": textured, "sheet": {"size": 32, "columns": 2}, "video": {"size": 32, "frames": 2}}
    for name, chosen in options.items():
        entry = registry.find("exporter", name)
        target: Any = entry.load()
        *_, written[name] = target(make_options(entry, target, registry, chosen), Context()).export(made, tmp_path)
    body: Any = trimesh.load(written["glb"], force="mesh")
    assert body.is_winding_consistent and float(np.abs(np.linalg.norm(body.vertices, axis=1) - 0.5).max()) < 0.07
    image = np.asarray(body.visual.material.baseColorTexture.convert("RGB"), np.float32) / 255
    reddish = image[..., 0] > image[..., 1]
    assert 0.2 < reddish.mean() < 0.8 and image[reddish].mean(0).tolist() == pytest.approx([0.9, 0.1, 0.2], abs=0.1)
    same: Any = trimesh.load(written["obj"], force="mesh")
    assert same.area == pytest.approx(body.area, rel=1e-3)
    np.testing.assert_allclose(np.asarray(same.visual.material.image.convert("RGB"), np.float32) / 255, image, atol=0.02)
    assert Image.open(written["sheet"]).size[0] > 64 and written["video"].stat().st_size > 500


def test_a_job_with_splats_and_a_plain_material_fits_together() -> None:
    from core.config.loading import load_job
    from core.discovery import get_registry

    job = load_job("splats", [], get_registry(), {"prompt": "a red mug"})
    assert job.stages[0].task.options.geometry.name == "splats"
    assert scene().geometry.options.degree == 0
