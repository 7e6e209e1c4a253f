"""The smoke preset cut short: stopped and resumed, sampled, led by a picture, polished, exported, evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.cli import main
from core.config.loading import load_job
from core.contracts import Context
from core.discovery import get_registry
from core.errors import ConfigError, UserError
from core.generative.drawing import ask, draw, first_scene, open_generator
from core.job import run_job
from core.run import Run
from plugins.gsd.evaluate import evaluate
from plugins.gsd.tokens import tokens_of

SHORT = ["steps=3", "data.objects=4", "data.kept=64", "fit.count=16", "geometry.count=16", "fit.steps=2", "fit.views=2",
         "batch=2", "log_every=1", "sampling.steps=3", "network.width=16"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pools of this module, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def fit(folder: Path, **how: Any) -> Run:
    registry = get_registry()
    return run_job(load_job("gsd-smoke", SHORT, registry), registry, quiet=True, folder=folder, **how)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rgba = np.zeros((48, 48, 4), np.uint8)
    rgba[10:38, 14:34] = (200, 40, 40, 255)
    path = tmp_path_factory.mktemp("given") / "red.png"
    Image.fromarray(rgba).save(path)
    return path


def test_a_stopped_run_goes_on_as_if_it_had_not_been(run: Run, tmp_path: Path) -> None:
    early = fit(tmp_path / "cut", max_steps=1)
    registry = get_registry()
    again = run_job(load_job("gsd-smoke", SHORT, registry), registry, quiet=True, resume=early.folder)
    assert again.state == run.state == "finished"
    other = again.task().state_dict()
    for name, value in run.task().state_dict().items():
        torch.testing.assert_close(value, other[name], msg=name)


def test_samples_are_gaussians_that_follow_from_the_seed_and_are_exported(run: Run) -> None:
    assert main(["sample", str(run.folder), "-n", "1", "--to", "splat-ply", "prompt=a rocket"]) == 0
    assert (run.folder / "samples" / "sheet.png").is_file() and list((run.folder / "samples" / "00").glob("*.ply"))
    _, gsd = open_generator(run.folder)
    a, b, c = (tokens_of(draw(gsd, 1, seed, ask("a mug"))[0].geometry.splats()) for seed in (1, 1, 2))  # type: ignore[union-attr]
    assert a.shape == (16, 16) and torch.equal(a, b) and not torch.equal(a, c)
    splats = get_registry().find("geometry", "splats").load()
    geometry = splats(splats.Config(count=7), Context())
    scene = first_scene(run.folder, "gsd", "a mug", 1, Context(parts={"registry": get_registry()}))
    geometry.start_from(scene)
    assert torch.equal(geometry.means, scene.geometry.splats().means)


def test_a_picture_leads_and_a_2d_prior_polishes(run: Run, picture: Path) -> None:
    found = []
    polish = ["polish={prior: embedded, views: 1, size: 64, steps: 1, fit_steps: 1, again: true}"]
    for changes in (["views.scale=0"], [], polish):
        _, gsd = open_generator(run.folder, changes)
        found.append(tokens_of(draw(gsd, 1, 3, ask("", picture))[0].geometry.splats()))  # type: ignore[union-attr]
        assert not any("prior" in name for name in gsd.state_dict())
    free, led, polished = found
    assert not torch.equal(free, led) and not torch.equal(led, polished)
    job = load_job("gsd", [f"init.run={run.folder}", f"image={picture}"], get_registry())
    assert job.stages[0].task.name == "lift"


def test_what_cannot_be_sampled_is_said(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sample", str(run.folder), "prompt=a teapot"]) != 0
    said = capsys.readouterr().err
    assert "'a teapot' names no class that it knows; it was fitted to: airplane, chair, mug, rocket" in said
    assert main(["sample", str(run.folder), "-n", "1000"]) != 0
    assert "samples are made by 1 to 256 at once" in capsys.readouterr().err
    _, told_nothing = open_generator(run.folder)
    told_nothing.names = ()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="fitted without classes, so it cannot be asked for 'a mug'"):
        draw(told_nothing, 1, 0, ask("a mug"))
    told_nothing.deviation.zero_()  # type: ignore[attr-defined, operator]
    with pytest.raises(UserError, match="has not taken a step"):
        draw(told_nothing, 1)
    with pytest.raises(UserError, match="voxel|splats"):
        draw(open_generator(run.folder, ["geometry=voxel"])[1], 1)
    with pytest.raises((UserError, ConfigError)):
        open_generator(run.folder, ["network.width=32"])  # the checkpoint's network is another one
    with pytest.raises(UserError, match=r"network.width=15 is no multiple of network.heads"):
        open_generator(run.folder, ["network.width=15"])


def test_it_is_evaluated_beside_what_lacks_its_parts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.gsd.evaluate._ALONE", 20)
    table = evaluate(run.folder, shapes=4, objects=1, steps=2, output=tmp_path)
    sets, views = table["sets"], table["one view"]
    assert list(sets) == [
        "training objects", "gsd", "Gaussians drawn one by one", "numbers from N(mean, deviation)",
    ]  # fmt: skip
    assert sets["training objects"]["from training"] < 0.01 < sets["numbers from N(mean, deviation)"]["from training"]
    assert all(0 <= row["1-nna"] <= 1 and 0 <= row["class"] <= 1 for row in sets.values())
    alone = views["fitted without a prior"]["psnr given"]  # follows the given view best, whatever was learned
    assert alone > max(row["psnr given"] for name, row in views.items() if name != "fitted without a prior")
    assert views["best of 8 free"]["psnr given"] >= views["free"]["psnr given"] - 0.5
    assert all(np.isfinite(list(row.values())).all() for row in views.values())
    assert {"led, scale 2", "led, scale 8", "led, scale 32", "led by the estimate's gradient", "mean picture"} < set(
        views
    )
    assert (tmp_path / "gsd.png").is_file() and (tmp_path / "draws.png").is_file()
    assert set(table["draws"]) == {"led", "free"} and table["draws"]["free"]["from behind"] > 0
    with pytest.raises(UserError, match="4 objects at least"):
        evaluate(run.folder, shapes=2)
    with pytest.raises(UserError, match="32 training objects are asked for; the run has 4"):
        evaluate(run.folder)


def test_a_prior_that_looks_is_shown_the_given_view_or_another_object_s(run: Run, tmp_path: Path) -> None:
    from plugins.gsd.evaluate import held_out, opened, polished_rows

    task = opened(run.folder, ["polish={prior: embedded-zero123, views: 1, steps: 1, fit_steps: 1}"])
    held = held_out(task, 2)
    assert len(held.fine) == 2 and held.fine[0].rgb.shape == (1, 64, 64, 3)
    seen: list[Any] = []
    condition = task.prior.condition
    task.prior.condition = lambda texts, cameras=None, views=None: (
        seen.append(views),
        condition(texts, cameras, views),
    )[1]
    rows, pictures = polished_rows(task, held, task.sets[0][:2])
    assert pictures.shape == held.rgb[:, 1].shape
    assert set(rows) == {"led, polished", "led, polished as another object"}
    shown = [views for views in seen if views is not None]
    assert [next(k for k in range(2) if v is held.fine[k]) for v in shown] == [0, 1, 1, 0]


@pytest.mark.parametrize("preset", ["gsd-cpu", "gsd-gpu", "gsd-paper"])
def test_presets_are_sound(preset: str) -> None:
    assert load_job(preset, [], get_registry()).stages[0].task.name == "gsd"
