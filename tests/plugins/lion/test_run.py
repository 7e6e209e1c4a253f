"""The smoke preset from start to end, cut short: stopped and resumed, sampled, exported, started from, evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from core.cli import main
from core.config.loading import load_job
from core.contracts import Context, Step
from core.discovery import get_registry
from core.errors import UserError
from core.generative.drawing import ask, draw, first_scene, open_generator
from core.job import run_job
from core.run import Run
from core.testing import check_component
from core.testing.check import make_options
from plugins.lion.evaluate import evaluate
from plugins.lion.lion_prior import LionPrior
from plugins.lion.point_latent import PointLatent

SHORT = ["stages.0.steps=2", "stages.1.steps=2", "data.objects=8", "data.batch=4", "log_every=1", "sampling.steps=2"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pools of this module, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def fit(folder: Path, **how: object) -> Run:
    registry = get_registry()
    return run_job(load_job("lion-smoke", SHORT, registry), registry, quiet=True, folder=folder, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(tmp_path_factory.mktemp("runs") / "whole")


def context() -> Context:
    return Context(parts={"registry": get_registry()})


def latent(run: Run, **options: object) -> PointLatent:
    return PointLatent(PointLatent.Config(run=run.folder, **options), context())  # type: ignore[arg-type]


def test_a_stopped_run_is_not_evaluated_and_goes_on_as_if_it_had_not_been(run: Run, tmp_path: Path) -> None:
    early = fit(tmp_path / "cut", max_steps=1)
    with pytest.raises(UserError, match="has fitted the autoencoder alone so far; its priors come next"):
        evaluate(early.folder)
    with pytest.raises(UserError, match="the loss latent-prior needs priors"):
        latent(early).extra("latent-score", None, Step(0, 1))  # type: ignore[arg-type]
    registry = get_registry()
    again = run_job(load_job("lion-smoke", SHORT, registry), registry, quiet=True, resume=early.folder)
    assert again.state == run.state == "finished"
    other = again.task().state_dict()
    for name, value in run.task().state_dict().items():
        torch.testing.assert_close(value, other[name], msg=name)


def test_samples_are_exported_as_meshes_and_points(run: Run) -> None:
    assert main(["sample", str(run.folder), "-n", "1", "--to", "glb,ply,point-ply", "prompt=a rocket"]) == 0
    samples = run.folder / "samples"
    assert (samples / "sheet.png").is_file()
    for suffix in (".glb", ".ply"):
        mesh: Any = trimesh.load(samples / "00" / f"lion{suffix}", force="mesh")
        assert len(mesh.faces) > 10 and np.isfinite(mesh.vertices).all()
    _, lion = open_generator(run.folder)
    made: Any = draw(lion, 1, 0, ask("a rocket"))[0]
    read: Any = trimesh.load(samples / "00" / "lion-points.ply")
    np.testing.assert_allclose(read.vertices, made.geometry.cloud().positions, atol=1e-6)


def test_a_class_or_count_that_cannot_be_sampled(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run.folder), "prompt=a teapot"]) != 0
    said = capsys.readouterr().err
    assert "'a teapot' names no class that it knows; it was fitted to: airplane, chair, mug, rocket" in said
    assert main(["sample", str(run.folder), "-n", "1000"]) != 0
    assert "1000" in capsys.readouterr().err


def test_splats_start_on_a_samples_surface(run: Run) -> None:
    scene = first_scene(run.folder, "lion", "a mug", 0, context())
    splats = get_registry().find("geometry", "splats").load()
    geometry = splats(splats.Config(count=40), context())
    geometry.start_from(scene)
    vertices = scene.geometry.mesh(0).vertices
    assert float(torch.cdist(geometry.means.detach(), vertices).amin(1).max()) < 0.15
    with pytest.raises(UserError, match=r"init: a run of 'lsgm' was expected and .* fitted 'lion'"):
        first_scene(run.folder, "lsgm", "", 0, context())


@pytest.mark.parametrize("preset", ["lion-then-splats", "lion-latents"])
def test_presets_are_sound(run: Run, preset: str) -> None:
    key = "init.run" if preset == "lion-then-splats" else "geometry.run"
    job = load_job(preset, [f"{key}={run.folder}"], get_registry(), {"prompt": "a mug"})
    assert job.stages[0].task.name == "lift"


def test_point_latents_keep_the_geometrys_contract(run: Run) -> None:
    assert len(check_component("geometry", "point-latent", options={"run": str(run.folder)})) >= 15
    assert len(check_component("loss", "latent-prior")) >= 2


def test_the_surface_and_the_points_move_with_the_latents(run: Run) -> None:
    geometry = latent(run, prompt="a mug", seed=1)
    for value in (geometry.surface().vertices.square().sum(), geometry.splats().means.square().sum()):
        for found in torch.autograd.grad(value, [geometry.z, geometry.h], retain_graph=True):
            assert bool(torch.isfinite(found).all()) and float(found.abs().max()) > 0
    assert not any(name.startswith("_lion") for name in geometry.state_dict())
    near = geometry.features(geometry.cloud().positions.detach()[:5])
    torch.testing.assert_close(near, geometry.colors[:5])


def test_the_3d_priors_pull_is_the_noise_that_they_see_too_much(run: Run) -> None:
    geometry, step = latent(run, low=0.4, high=0.4), Step(3, 10)
    value = geometry.extra("latent-score", None, step)  # type: ignore[arg-type]
    (pull,) = torch.autograd.grad(value, geometry.h)
    lion, random = geometry.lion, step.generator("latent-prior")
    torch.rand(1, generator=random)
    noise, t = torch.randn(geometry.h.shape, generator=random), torch.tensor([0.4])
    with torch.no_grad():
        noisy = lion.sde.add_noise(geometry.h, noise, t)
        seen = lion.average.model["points"](noisy, t, geometry.z, geometry._told)
    torch.testing.assert_close(pull, lion.sde.variance(t) * (seen - noise) / noise.numel())


def test_latents_of_another_geometry(run: Run) -> None:
    ball = get_registry().find("geometry", "mesh").load()
    geometry = latent(run)
    geometry.init_from(ball(ball.Config(radius=0.6, levels=2, finest=8), context()))
    found = geometry.cloud().positions.norm(dim=-1)
    assert abs(float(found.detach().mean()) - 0.6) < 0.15 and geometry.h.requires_grad


def test_runs_that_hold_no_latents(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="geometry.run: .* is not a run"):
        PointLatent(PointLatent.Config(run=tmp_path), context())
    with pytest.raises(UserError, match=r"geometry.low is 0.9, above geometry.high, 0.5"):
        latent(run, low=0.9)


def test_it_is_evaluated_beside_what_lacks_its_parts(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = evaluate(run.folder, shapes=8, moved=4, known=8)
    assert list(table["sets"]) == [
        "training shapes", "lion", "global latent from N(0, I)", "latent points from N(0, I)",
        "both latents from N(0, I)", "one Gaussian for all points", "held-out shapes",
    ]  # fmt: skip
    for name, row in table["sets"].items():
        assert all(0 <= value <= 1 for score, value in row.items() if score.startswith(("1-nna", "cov")))
        assert 0 <= row["class"] <= 1 and row["from training"] >= 0, name
    assert table["sets"]["training shapes"]["from training"] == pytest.approx(0, abs=1e-3)
    assert table["sets"]["one Gaussian for all points"]["mmd CD"] > table["sets"]["training shapes"]["mmd CD"]
    assert table["autoencoder"]["ratio (1.5 at most is asked)"] > 0
    assert 0 <= table["interpolation"]["steps that lead on"] <= 1
    assert "class stays with the global latent" in capsys.readouterr().out
    with pytest.raises(UserError, match="4 shapes at least"):
        evaluate(run.folder, shapes=2)
    with pytest.raises(UserError, match="99 training shapes are asked for; the run has 8"):
        evaluate(run.folder, shapes=4, moved=4, known=99)


# -- as a prior of another geometry ------------------------------------------------------------------------------------


def shape_prior(run: Run, geometry: Any = None, **options: object) -> LionPrior:
    made = context()
    if geometry is not None:
        made.parts["geometry"] = geometry
    return LionPrior(LionPrior.Config(run=run.folder, **options), made)  # type: ignore[arg-type]


def some_splats() -> Any:
    splats = get_registry().find("geometry", "splats").load()
    return splats(splats.Config(count=300), context())


def test_a_shape_is_encoded_and_points_follow(run: Run) -> None:
    """Latent points are the Gaussians' centres with hardly any change, so a pull on them is one on the centres."""
    geometry = some_splats()
    prior = shape_prior(run, geometry)
    code = prior.encode_shape(geometry)
    lion, o = prior.lion, prior.lion.options
    assert code.shape == (1, o.vae.size + o.data.options.points * (3 + o.vae.features))
    back = prior.decode(code)[0]
    assert float(torch.cdist(back, geometry.means).detach().amin(1).max()) < 0.25
    (pull,) = torch.autograd.grad(prior._parts(code)[1][..., 0].sum(), geometry.means)
    moved = pull.norm(dim=1) > 0
    assert int(moved.sum()) == o.data.options.points  # 128 of 300 are drawn
    torch.testing.assert_close(pull[moved, 0].mean(), 1 / lion.scale, rtol=0.2, atol=0)
    # A closed surface is looked at where there are no Gaussians.
    ball = get_registry().find("geometry", "mesh").load()
    round_one = ball(ball.Config(radius=0.6, levels=2, finest=8), context())
    found = shape_prior(run, round_one).decode(shape_prior(run, round_one).encode_shape(round_one))[0]
    assert abs(float(found.detach().norm(dim=-1).mean()) - 0.6) < 0.1


def test_its_prediction_is_that_of_both_models(run: Run) -> None:
    geometry = some_splats()
    prior = shape_prior(run, geometry)
    x0 = prior.encode_shape(geometry).detach()
    t = torch.tensor([399])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    noisy = prior.process.add_noise(x0, noise, t)
    torch.testing.assert_close(noisy, prior.lion.sde.add_noise(x0, noise, torch.tensor([0.4])), rtol=1e-4, atol=1e-5)
    told = prior.condition(["a mug"])
    with torch.no_grad():
        found = prior.predict(noisy, t, told)
        models, row, time = prior.lion.average.model, told.text[:, 0], torch.tensor([0.4])  # type: ignore[index]
        (z, h), (whole, _) = prior._parts(noisy), prior._parts(x0)
        wanted = [models["shape"](z, time, row), models["points"](h, time, whole, row).flatten(1)]
    torch.testing.assert_close(found, torch.cat(wanted, 1))
    names = prior.lion.conditions.names
    assert row.argmax() == names.index("mug") and not prior.condition([""]).text.any()  # type: ignore[union-attr]


def test_score_distillation_in_its_space_draws_a_shape_to_what_it_knows(run: Run) -> None:
    """With logits of the mixed score that leave N(0, I) alone, the exact pull is known: latents shrink towards 0."""
    registry, geometry = get_registry(), some_splats()
    prior = shape_prior(run, geometry)
    for name in ("shape", "points"):
        torch.nn.init.constant_(prior.lion.average.model[name].logit, -1e4)
    entry = registry.find("score", "sds")
    score = entry.load()(make_options(entry, entry.load(), registry, {"scale": 1.0, "weighting": "sds"}), Context())
    x = prior.encode_shape(geometry).detach()
    told, pull = prior.condition(["a mug"]), torch.zeros_like(x)
    for k in range(200):
        pull += score.gradient(prior, x, told, prior.condition([""]), Step(k, 200, 0)) / 200
    h, drawn = prior._parts(x)[1], prior._parts(pull)[1]
    share = float((h * drawn).sum() / h.square().sum())
    times = (torch.arange(20, 980) + 1.0) / 1000  # levels 0.02 to 0.98; s^2 (eps_hat - eps) has mean s^3 a x
    s, a = prior.lion.sde.variance(times).sqrt(), prior.lion.sde.alpha(times)
    assert share == pytest.approx(float((s**3 * a).mean()), rel=0.1)


def test_it_keeps_a_priors_contract(run: Run) -> None:
    assert len(check_component("prior", "lion-prior", options={"run": str(run.folder)})) >= 12


def test_what_cannot_guide_by_shapes(run: Run, tmp_path: Path) -> None:
    voxel = get_registry().find("geometry", "voxel").load()
    with pytest.raises(UserError, match="looks at Gaussians or at a surface, and Voxel has neither"):
        shape_prior(run, voxel(voxel.Config(), context()))
    with pytest.raises(UserError, match="prior.run: .* is not a run"):
        LionPrior(LionPrior.Config(run=tmp_path), context())
    with pytest.raises(UserError, match="fitted the autoencoder alone so far, so it knows no shapes"):
        shape_prior(fit(tmp_path / "cut", max_steps=1))
    with pytest.raises(UserError, match="knows shapes, not pictures; set sees: shape"):
        shape_prior(run).encode(torch.zeros(1, 8, 8, 3))


def test_a_lift_is_led_by_a_2d_and_a_3d_prior_at_once(run: Run, tmp_path: Path) -> None:
    changes = [f"init.run={run.folder}", f"guidance.1.prior.run={run.folder}", "steps=2", "export=[]"]
    job = load_job("lion-guided", [*changes, "geometry.count=200"], get_registry(), {"prompt": "a mug"})
    made = run_job(job, get_registry(), quiet=True, folder=tmp_path / "lift")
    assert made.state == "finished"
