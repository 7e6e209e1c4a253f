"""Pictures made of the scene: when, from what, and that a resumed run goes on with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core import checkpoint
from core.config.job import Job
from core.config.loading import load_job
from core.contracts import Step
from core.diffusion.sampler import ddim_latents, denoise
from core.discovery import get_registry
from core.errors import UserError
from core.job import run_job
from core.stages import build_task
from core.testing import check_component
from plugins.dataset_update.dataset_update import silhouettes

sys.path.insert(0, str(Path(__file__).parents[2] / "core"))
from tiny_pipeline import PICTURE, write_pipeline  # noqa: E402


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("family"), camera_dim=10)


def source(family: Path, **options: Any) -> dict[str, Any]:
    cameras = {"type": "random-cameras", "batch": 3, "size": PICTURE}
    prior = {"type": "embedded", "family": str(family), "precision": "float32"}
    return {"type": "dataset-update", "prior": prior, "cameras": cameras, "batch": 2, "updates": 2} | options


def make_job(family: Path, **options: Any) -> Job:
    values: dict[str, Any] = {
        "task": "lift", "name": "tiny", "prompt": "a red ball", "device": "cpu", "steps": 6, "preview_every": 0,
        "checkpoint_every": 0, "log_every": 1, "optimizer": {"lr": 0.01}, "material": "plain", "background": "solid",
        "geometry": {"type": "hash-grid", "levels": 3, "log2_table": 9, "finest": 16, "hidden": 8}, "prompts": "same",
        "renderer": {"type": "volume", "samples": 16, "grid": 8, "update_every": 2, "warmup": 3},
        "losses": {"image": 1, "mask": 0.2}, "data": source(family, **options),
    }  # fmt: skip
    return load_job(values, [], get_registry())


def built(family: Path, **options: Any) -> Any:
    return build_task(make_job(family, **options), get_registry(), 0, torch.device("cpu"))


def test_it_keeps_its_contract(family: Path) -> None:
    options = {k: v for k, v in source(family).items() if k != "type"}
    assert len(check_component("data", "dataset-update", options=options)) >= 8


@pytest.mark.parametrize(("updates", "total", "wanted"), [(2, 6, [0, 3]), (4, 4, [0, 1, 2, 3]), (9, 3, [0, 1, 2]), (3, 10, [0, 4, 7])])
def test_pictures_are_made_at_equal_distances(family: Path, updates: int, total: int, wanted: list[int]) -> None:
    data = built(family, updates=updates).data
    assert [k for k in range(total) if data.starts(Step(k, total))] == wanted


def test_a_picture_is_the_scene_noised_and_denoised(family: Path) -> None:
    task = built(family, level=0.4, chunk=2, denoise_steps=10, scale=2.0)
    step = Step(0, 6, seed=1)
    task.update(step)
    data, prior = task.data, task.data.prior
    cameras = data._cameras.batch(step)["cameras"]
    with torch.no_grad():
        latents = prior.encode(task.parts["renderer"](cameras).rgb)
        noise = torch.randn(latents[:1].shape, generator=step.generator("dataset-update"))
        t = torch.full((3,), int(0.4 * prior.process.steps))
        noisy = prior.process.add_noise(latents, noise.expand_as(latents), t)
        told, untold, _ = task.asked.conditions(prior, cameras)
        wanted = prior.decode(ddim_latents(prior, noisy, told, untold, 2.0, 4, first=int(t[0])))
    torch.testing.assert_close(data.target, wanted, atol=1e-4, rtol=1e-3)
    batch = data.batch(step)
    for view, picture in zip(batch["cameras"].c2w, batch["target"], strict=True):
        index = [torch.equal(view, c) for c in cameras.c2w].index(True)
        assert torch.equal(picture, data.target[index])


def test_pictures_change_in_turn_and_are_their_originals_until_then(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instruct-NeRF2NeRF: an update replaces one picture of the set, at the set's own size."""
    monkeypatch.setattr("plugins.dataset_update.dataset_update.denoise", lambda prior, latents, *rest: latents + 1)
    cameras = {"type": "random-cameras", "batch": 3, "size": PICTURE + 8}
    task = built(family, keep_originals=True, each=1, updates=4, cameras=cameras)
    first = task.data._cameras.batch(Step(0, 4))["cameras"]
    with torch.no_grad():
        seen = task.parts["renderer"](first).rgb
    turns: set[int] = set()
    for index in range(4):
        step = Step(index, 4)
        task.update(step)
        turns.add(int(torch.randperm(3, generator=step.generator("dataset-turn"))[0]))
        torch.testing.assert_close(task.data.original, seen)
        assert torch.equal(task.data.c2w, first.c2w)
        assert {k for k in range(3) if not torch.equal(task.data.target[k], task.data.original[k])} == turns
    with pytest.raises(UserError, match="set keep_originals: true"):
        built(family, each=1)


def test_almost_no_noise_leaves_the_latents(family: Path) -> None:
    task = built(family)
    prior, cameras = task.data.prior, task.data._cameras.batch(Step(0, 6))["cameras"]
    told, untold, _ = task.asked.conditions(prior, cameras)
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    back = denoise(prior, latents, torch.randn_like(latents), 0.0, told, untold, 1.0, 1)
    assert (back - latents).abs().mean() < 0.1


def test_a_stopped_run_goes_on_with_the_same_pictures(family: Path, tmp_path: Path) -> None:
    job = make_job(family)
    whole = run_job(job, get_registry(), folder=tmp_path / "whole", quiet=True)
    part = run_job(job, get_registry(), folder=tmp_path / "part", quiet=True, max_steps=4)
    assert (whole.state, part.state) == ("finished", "stopped")
    again = run_job(job, get_registry(), quiet=True, resume=part.folder)
    ends = [load_file(checkpoint.list_checkpoints(r.folder / "checkpoints")[-1] / "model.safetensors") for r in (whole, again)]
    assert "data.target" in ends[0]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())


def test_a_silhouette_is_what_the_background_does_not_reach() -> None:
    ys, xs = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    radius = ((xs - 15.5) ** 2 + (ys - 15.5) ** 2).sqrt()
    picture = torch.full((2, 32, 32, 3), 0.5)
    picture[0][(radius < 10) & (radius > 5)] = torch.tensor([0.9, 0.2, 0.1])  # a ring: its inside is the object's
    mask = silhouettes(picture + 0.01, 0.5, 0.05)
    assert torch.equal(mask[0, ..., 0], (radius < 10).float())
    assert not mask[1].any()
    assert silhouettes(torch.ones(1, 8, 8, 3), 0.5, 0.05).all()


def test_a_lift_that_nothing_leads_is_refused(family: Path) -> None:
    job = {k: v for k, v in make_job(family).resolved.items() if k != "losses"}
    with pytest.raises(UserError, match="nothing leads this lift"):
        load_job(job, [], get_registry())


def test_a_given_picture_lies_in_every_batch(family: Path, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "ball.png"
    pixels = torch.zeros(64, 64, 4, dtype=torch.uint8)
    pixels[16:48, 16:48] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    job = make_job(family)
    plain = build_task(job, get_registry(), 0, torch.device("cpu"))
    values = {**job.resolved, "image": str(path), "picture": {"azimuth": 70, "elevation": 10}}
    task: Any = build_task(load_job(values, [], get_registry()), get_registry(), 0, torch.device("cpu"))
    for one, rows in ((plain, 2), (task, 3)):
        one.update(Step(0, 6))
        batch = one.data.batch(Step(0, 6))
        assert len(batch["cameras"]) == len(batch["target"]) == len(batch["target-mask"]) == rows
    assert round(float(batch["cameras"].azimuth[-1].rad2deg())) == 70
    size = PICTURE // 2
    torch.testing.assert_close(batch["target"][-1, size, size], torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-2)
    torch.testing.assert_close(batch["target"][-1, 0, 0], torch.full((3,), 0.5), rtol=0, atol=1e-3)
    assert float(batch["target-mask"][-1, size, size]) > 0.99 and float(batch["target-mask"][-1, 0, 0]) < 0.01
    losses = task.training_step(Step(0, 6))
    assert set(losses) == {"image", "mask"} and all(bool(v.isfinite()) for v in losses.values())
