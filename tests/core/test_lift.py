"""Small lifts through ``run_job`` with a latent prior of random weights: what changes, what stays, and resuming."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core import checkpoint, losses
from core.config.base import ComponentSpec
from core.config.job import Job
from core.config.loading import load_job
from core.contracts import Context, Exporter, Scene, Step
from core.discovery import get_registry
from core.errors import ConfigError, UserError
from core.job import run_job
from core.lift import Lift, export_scene, slug
from core.run import Run, open_run
from core.stages import build_task
from core.testing import check_component

from tiny_pipeline import PICTURE, write_pipeline  # isort: skip

STEPS = 6


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_pipeline(tmp_path_factory.mktemp("family"), camera_dim=10)
    assert (folder / "tokenizer" / "words.json").is_file()
    return folder


def guidance(family: Path, **options: Any) -> dict[str, Any]:
    prior = {"type": "embedded", "family": str(family), "precision": "float32"}
    return {"prior": prior, "score": {"type": "sds", "scale": 2.0}} | options


def make_job(family: Path, *overrides: str, **values: Any) -> Job:
    base: dict[str, Any] = {
        "task": "lift", "name": "tiny", "prompt": "a red ball", "device": "cpu", "steps": STEPS,
        "preview_every": 0, "checkpoint_every": 0, "log_every": 1, "optimizer": {"lr": 0.01},
        "geometry": {"type": "hash-grid", "levels": 3, "log2_table": 9, "finest": 16, "hidden": 8},
        "material": "plain", "background": {"type": "neural", "hidden": 4}, "prompts": "same",
        "renderer": {"type": "volume", "samples": 16, "grid": 8, "update_every": 2, "warmup": 3},
        "data": {"type": "random-cameras", "batch": 2, "size": PICTURE},
        "guidance": [guidance(family)],
    }  # fmt: skip
    return load_job(base | values, overrides, get_registry())


def lift(folder: Path, job: Job, **options: Any) -> Run:
    return run_job(job, get_registry(), folder=folder, quiet=True, **options)


def task_of(run: Run) -> Lift:
    assert isinstance(run.current, Lift)
    return run.current


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.list_checkpoints(folder / "checkpoints")[-1] / "model.safetensors")


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def fresh(job: Job) -> Lift:
    """The task before its first step."""
    task = build_task(job, get_registry(), 0, torch.device("cpu"))
    assert isinstance(task, Lift)
    return task


def test_it_keeps_its_contract(family: Path) -> None:
    own = ("prompt", "geometry", "material", "background", "renderer", "data", "prompts", "guidance")
    options = {name: make_job(family).resolved[name] for name in own}
    assert len(check_component("task", "lift", options=options)) >= 8


def test_a_lift_changes_the_scene_and_nothing_of_the_prior(family: Path, tmp_path: Path) -> None:
    job = make_job(family)
    before = {k: v.clone() for k, v in fresh(job).state_dict().items()}
    run = lift(tmp_path / "run", job)
    assert run.state == "finished"
    after = task_of(run).state_dict()
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert {"parts.geometry.table", "parts.geometry.first.weight", "parts.background.second.bias"} <= changed
    (used,) = task_of(run).guidance
    assert not any(p.requires_grad or p.grad is not None for p in used.prior.parameters())
    stored = load_file(family / "unet" / "diffusion_pytorch_model.safetensors")
    held = used.prior.unet.state_dict()
    assert all(torch.equal(held[k].cpu(), v) for k, v in stored.items())


def test_the_checkpoint_holds_the_scene_alone(family: Path, tmp_path: Path) -> None:
    run = lift(tmp_path / "run", make_job(family))
    names = set(weights(run.folder))
    assert {"parts.geometry.table", "parts.renderer.grid.density"} <= names
    assert all(n.startswith("parts.") for n in names)
    assert not any(word in name for name in names for word in ("unet", "vae", "text_encoder", "prior"))
    task = task_of(run)
    grouped = [id(p) for group in task.param_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in task.parameters())


@pytest.mark.parametrize("pause", [1, 4])
def test_stopping_and_resuming_is_bit_identical(family: Path, tmp_path: Path, pause: int) -> None:
    options = {"checkpoint_every": 2, "losses": {"sparsity": 0.1, "opacity": {"from": 0, "to": 1}}}
    lift(tmp_path / "whole", make_job(family, **options))
    stopped = lift(tmp_path / "parts", make_job(family, **options), max_steps=pause)
    assert (stopped.state, stopped.step) == ("stopped", pause)
    resumed = run_job(make_job(family, **options), get_registry(), resume=tmp_path / "parts", quiet=True)
    assert resumed.state == "finished"
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.numpy().tobytes() == second[name].numpy().tobytes(), name
    keep = ("step", "losses", "metrics", "grad_norm")
    a, b = ([{k: line[k] for k in keep} for line in logged(tmp_path / n)] for n in ("whole", "parts"))
    assert a == b and len(a) == STEPS


def test_a_run_follows_from_its_seed(family: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        lift(tmp_path / name, make_job(family, seed=seed, steps=2))
    a, b, c = (weights(tmp_path / name)["parts.geometry.table"] for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_an_export_of_a_finished_run_loads_no_prior(family: Path, tmp_path: Path) -> None:
    """The prior's folder is gone by then; the scene is drawn all the same."""
    home = shutil.copytree(family, tmp_path / "moved")
    run = lift(tmp_path / "run", make_job(home, steps=2))
    shutil.rmtree(home)
    opened: Any = open_run(run.folder).task()
    scene, view = opened.scene(), opened.turntable(torch.zeros(1), 0.2, 8)
    assert (scene.name, scene.prompt) == ("a-red-ball", "a red ball")
    with torch.no_grad():
        seen, wanted = scene.renderer(view), task_of(run).parts["renderer"](view)
    assert torch.equal(seen.rgb, wanted.rgb)
    assert opened._guidance is None
    with pytest.raises(UserError, match="moved.* does not exist"):
        _ = opened.guidance


def test_a_score_that_learns_is_trained_saved_and_resumed(family: Path, tmp_path: Path) -> None:
    """VSD's additions are the optimiser's and the checkpoint's; an export loads them without their prior."""
    job = make_job(family, checkpoint_every=2, guidance=[guidance(family, score={"type": "vsd", "scale": 2.0})])
    whole = lift(tmp_path / "whole", job)
    assert lift(tmp_path / "parts", job, max_steps=4).state == "stopped"
    run_job(job, get_registry(), resume=tmp_path / "parts", quiet=True)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())
    raised = [v for k, v in first.items() if k.startswith("scores.0.particles.up.")]
    assert raised and all(bool((v != 0).any()) for v in raised)  # nothing at first
    assert {"guidance", "guidance_particles"} <= set(logged(tmp_path / "whole")[0]["losses"])
    opened: Any = open_run(whole.folder).task()
    assert opened._guidance is None and len(opened.scores["0"].particles.up) == len(raised)


class Note(Exporter):
    """Writes the prompt."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        (folder / "note.txt").write_text(scene.prompt)
        yield folder / "note.txt"


class Refuses(Exporter):
    """Cannot do it."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        raise UserError("nothing to see")
        yield folder


class FullDisk(Exporter):
    """Fails half way."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        (folder / "half.txt").touch()
        yield folder / "half.txt"
        raise OSError("no space left")


def test_exporters_write_assets_and_one_that_fails_stops_no_other(
    family: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = lift(tmp_path / "run", make_job(family, steps=1))
    context = Context()
    context.build = lambda spec: spec.options(None, context)
    specs = [ComponentSpec("exporter", cls.__name__, cls) for cls in (Refuses, FullDisk, Note)]
    with caplog.at_level(logging.WARNING, "maquette"):
        written = export_scene(task_of(run).scene(), specs, context, run)
    assert [p.name for p in written] == ["half.txt", "note.txt"]
    assert (run.assets / "note.txt").read_text() == "a red ball"
    said = [r.getMessage() for r in caplog.records]
    assert said == ["Refuses could not be exported: nothing to see", "FullDisk could not be exported: no space left"]


def test_two_guidances_are_added(family: Path, tmp_path: Path) -> None:
    both = [guidance(family, weight=0.5), guidance(family, weight={"from": 2, "to": 4})]
    both[1]["prior"] = both[1]["prior"] | {"camera": False}
    run = lift(tmp_path / "run", make_job(family, guidance=both, steps=3))
    found = [line["losses"] for line in logged(run.folder)]
    assert all(set(line) == {"guidance_0", "guidance_1", "total"} for line in found)
    for line in found:
        assert line["total"] == pytest.approx(line["guidance_0"] + line["guidance_1"])
    first, second = task_of(run).guidance
    assert first.prior is not second.prior


def test_the_weight_of_a_guidance_multiplies_its_loss(family: Path) -> None:
    values = {}
    for weight in (1.0, 3.0):
        task = fresh(make_job(family, guidance=[guidance(family, weight=weight)]))
        task.update(Step(0, STEPS))
        (values[weight],) = task.training_step(Step(0, STEPS)).values()
    assert values[3.0].item() == pytest.approx(3 * values[1.0].item(), rel=1e-5)


def test_losses_are_weighted_by_their_schedules_and_left_out_at_zero(family: Path) -> None:
    task = fresh(make_job(family, losses={"sparsity": 0.25, "opacity": {"from": 0, "to": 1}}))
    found = task.training_step(Step(0, 11))
    assert set(found) == {"guidance", "sparsity"}
    step = Step(10, 11)
    found = task.training_step(step)
    assert set(found) == {"guidance", "sparsity", "opacity"}
    render = task.parts["renderer"](task.data.batch(step)["cameras"], step)
    assert found["sparsity"].item() == pytest.approx(0.25 * losses.sparsity(render, step).item(), rel=1e-5)
    assert found["opacity"].item() == pytest.approx(losses.opacity(render, step).item(), rel=1e-5)


def test_the_gradient_of_a_guidance_is_the_scores_gradient_through_encoder_and_renderer(family: Path) -> None:
    """d loss / d parameters = sum over pictures of (score's gradient / B) . d latents / d parameters."""
    task, step = fresh(make_job(family)), Step(0, STEPS)
    (loss,) = task.training_step(step).values()
    table = task.geometry.table
    (found,) = torch.autograd.grad(loss, table)
    cameras = task.data.batch(step)["cameras"]
    (used,) = task.guidance
    latents = used.prior.encode(task.parts["renderer"](cameras, step).rgb)
    told, untold = (used.prior.condition([text] * 2, cameras) for text in ("a red ball", ""))
    score: Any = used.score
    gradient = score.gradient(used.prior, latents.detach(), told, untold, step)
    (wanted,) = torch.autograd.grad(latents, table, gradient / 2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)
    assert bool((found != 0).any())


def test_a_stage_starts_from_the_geometry_before_it(family: Path, tmp_path: Path) -> None:
    """A second stage that learns next to nothing ends where the first one did."""
    coarse = {"name": "coarse", "steps": 2}
    still = {"name": "fine", "steps": 1, "optimizer": {"lr": 1e-12}}
    one = task_of(lift(tmp_path / "one", make_job(family, stages=[coarse])))
    two = task_of(lift(tmp_path / "two", make_job(family, stages=[coarse, still])))
    torch.testing.assert_close(two.geometry.table, one.geometry.table, rtol=0, atol=1e-9)
    assert not torch.equal(one.geometry.table, fresh(make_job(family)).geometry.table)


def test_previews_are_pictures_of_four_sides(family: Path) -> None:
    task = fresh(make_job(family))
    with torch.no_grad():
        pictures = task.preview(Step(0, 1))
    assert pictures["views"].shape == (256, 512, 3) and pictures["views"].dtype == np.uint8
    assert task._guidance is None


def test_the_turntable_frames_the_unit_ball(family: Path) -> None:
    cameras = fresh(make_job(family)).turntable(torch.tensor([0.0, 1.0]), 0.3, 64)
    torch.testing.assert_close(cameras.distance, torch.full((2,), 3.0))
    # The ball's half angle is asin(1/3) = 19.47 degrees, the field of view's half 20.
    assert math.asin(1 / 3) < float(cameras.fov_y[0]) / 2 < math.asin(1 / 3) + 0.02


@pytest.mark.parametrize(
    ("text", "name"),
    [("A standing Corgi, dog!", "a-standing-corgi-dog"), ("???", "asset"), ("x" * 60, "x" * 48), ("a/../b", "a-b"),
     ("a" * 47 + " b", "a" * 47)],
)  # fmt: skip
def test_file_names_of_prompts(text: str, name: str) -> None:
    assert slug(text) == name


def test_a_lift_needs_a_prompt_and_a_guidance(family: Path) -> None:
    with pytest.raises(ConfigError, match="prompt"):
        make_job(family, prompt="")
    with pytest.raises(ConfigError, match="guidance"):
        make_job(family, guidance=[])
