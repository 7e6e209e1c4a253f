"""The volume that all views are renders of: order, number, what is never shown, and from pictures to an asset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from core.config.loading import load_job
from core.contracts import Scene, Step
from core.discovery import get_registry
from core.errors import ConfigError, UserError
from core.generative import view_scores as vs
from core.generative.drawing import ask
from core.generative.layers import ViewAttention, centres
from core.generative.through_rendering import Seen
from core.job import run_job
from core.stages import build_task
from core.types import Cameras
from plugins.viewset.network import ViewsetNetwork

TINY = (
    "data.images=12", "data.views=6", "data.size=8", "rays=32", "samples=6", "batch=2", "geometry.cells=7",
    "network.volume=4", "network.channels=4", "network.features=2", "network.head=4", "network.attention=[4]",
    "look.renderer.samples=8", "look.renderer.grid=8",
)  # fmt: skip
AROUND = Cameras.turntable(torch.tensor([0.0, 1.2, 2.5, 3.5, 5.0]), 0.3, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(*overrides: str) -> Any:
    job = load_job("viewset-smoke", [*TINY, *overrides], get_registry())
    return build_task(job, get_registry(), 0, torch.device("cpu"))


def stirred(task: Any) -> Any:
    """With weights everywhere: some convolutions start at 0, and an empty answer agrees with any other."""
    for model in (task.live, task.average.model):
        for p in model["network"].parameters():
            p.data = torch.randn(p.shape, generator=seeded(p.numel())) * 0.3
    return task


@pytest.fixture(scope="module")
def task() -> Any:
    return stirred(tiny())


def seen_by(cameras: Cameras, clean: int = 1) -> Seen:
    rgb = torch.rand(1, len(cameras), 3, 8, 8, generator=seeded(1)) * 2 - 1
    t = torch.tensor([[0] * clean + [500] * (len(cameras) - clean)])
    return Seen(rgb, t, cameras, rgb.flip(-1) * 0.5)


def volume(task: Any, seen: Seen) -> Tensor:
    (code,) = task.live["network"](seen)
    return torch.cat([code["shape"], code["colour"]], -1)


@torch.no_grad()
def test_the_order_of_views_does_not_matter_nor_their_number(task: Any) -> None:
    seen, order = seen_by(AROUND), torch.tensor([3, 0, 4, 1, 2])
    turned = Seen(seen.rgb[:, order], seen.t[:, order], AROUND[order], seen.guess[:, order])
    torch.testing.assert_close(volume(task, seen), volume(task, turned), atol=1e-4, rtol=1e-4)
    found = [volume(task, seen_by(AROUND[:k])) for k in range(1, 6)]
    assert all(v.shape == (1, 8**3, 4) for v in found)
    assert all(float((a - b).abs().mean()) > 1e-3 for a, b in zip(found, found[1:], strict=False)), "each view counts"


@torch.no_grad()
def test_a_view_s_noise_and_camera_are_heard(task: Any) -> None:
    seen = seen_by(AROUND[:3])
    for other in (replace(seen, t=torch.tensor([[0, 900, 900]])), replace(seen, cameras=AROUND[2:]),
                  replace(seen, guess=seen.guess * 0)):  # fmt: skip
        assert float((volume(task, seen) - volume(task, other)).abs().mean()) > 1e-3


@torch.no_grad()
def test_attention_is_over_views_and_voxel_by_voxel() -> None:
    torch.manual_seed(0)
    layer = ViewAttention(4, 8)
    layer.norm = layer.view_norm = layer.after = torch.nn.Identity()  # they look at the whole volume
    x, views = torch.randn(1, 4, 3, 3, 3), torch.randn(1, 2, 8, 3, 3, 3)
    other = views.clone()
    other[..., 1, 1, 1] += 1
    moved = (layer(x, views) - layer(x, other)).abs().sum(1)[0]
    assert float(moved[1, 1, 1]) > 0.01 and float(moved.sum() - moved[1, 1, 1]) < 1e-6
    q, k, v = layer.query(layer.match(x))[0], layer.key(views[0]), layer.value(views[0])
    share = torch.softmax(torch.einsum("cxyz,vcxyz->vxyz", q, k) / 8**0.5, 0)
    mixed = layer.outward(torch.einsum("vxyz,vcxyz->cxyz", share, v)[None])
    torch.testing.assert_close(layer(x, views), layer.match(x) + mixed)


def test_voxels_fetch_the_feature_that_they_project_to(task: Any) -> None:
    network: ViewsetNetwork = task.live["network"]
    ramp = (torch.arange(8) + 0.5).expand(1, 1, 8, 8)  # each pixel holds its own column
    found = network.unprojected(torch.cat([ramp, ramp.transpose(2, 3)], 1), AROUND[1:2])[0]
    pixels, depth = AROUND[1:2].project(network.centres)
    torch.testing.assert_close(found[:2].flatten(1), pixels[0].T.clamp(0.5, 7.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[2:5].flatten(1), network.centres.T)
    torch.testing.assert_close(found[5].flatten(), depth[0] - 3.0, atol=1e-5, rtol=0)
    nodes = torch.linspace(-1, 1, 8)
    assert torch.equal(centres(8, 8), nodes)
    torch.testing.assert_close(centres(4, 8), (nodes[::2] + nodes[1::2]) / 2)


def test_the_loss_is_the_weighted_error_of_seen_and_unseen_views() -> None:
    task = tiny("min_snr=5", "self_condition=0", "unseen=0.25", "rays=64")
    rgb, cameras = task.drawn_views(2, 3, seeded())
    t, step = torch.tensor([[0, 600], [0, 20]]), Step(0, 10)
    losses = task.denoising_losses(rgb, cameras, t, 0.25, step)
    shown = cameras[torch.tensor([0, 1, 3, 4])]
    noise = torch.randn(2, 2, 3, 8, 8, generator=step.generator("noise"))
    bar = task.process.alphas_cumprod.float()[t][..., None, None, None]
    noisy = torch.where((t > 0)[..., None, None, None], bar.sqrt() * rgb[:, :2] + (1 - bar).sqrt() * noise, rgb[:, :2])
    codes = task.live["network"](Seen(noisy, t, shown, torch.zeros_like(noisy)))
    error = (task.pictures(task.live["look"], codes, cameras) - rgb).square().mean((2, 3, 4))
    snr = (bar / (1 - bar)).clamp(max=5).flatten(1) / 5
    # All 64 pixels, but stratified where the pictures take the middle of each interval.
    torch.testing.assert_close(losses["seen"], (snr * error[:, :2]).mean(), rtol=0.05, atol=1e-3)
    torch.testing.assert_close(losses["unseen"], 0.25 * error[:, 2:].mean(), rtol=0.05, atol=1e-3)
    assert set(task.denoising_losses(rgb, cameras, t, 0.0, step)) == {"seen"}


@torch.no_grad()
def test_every_denoised_view_is_a_render_of_the_scene_that_is_exported(task: Any) -> None:
    (code,) = task.draw(1, None, seeded(), steps=2)
    scene = task.scene(code)
    cameras = AROUND[:2]
    seen = task.pictures(task.average.model["look"], [code], cameras)
    points = torch.rand(100, 3, generator=seeded()) * 2 - 1
    mine = torch.func.functional_call(
        task.average.model["look"], {f"geometry.{k}": v for k, v in code.items()}, (points, points)
    )
    found = scene.geometry.field(points)
    assert torch.equal(found["density"], mine[0])
    assert torch.equal(scene.material(found["features"], points, points, None), mine[1])
    fine = tiny("samples=256", "look.renderer.samples=256")
    scene = fine.scene(code)
    near = fine.pictures(fine.average.model["look"], [code], cameras)[0].movedim(1, -1) / 2 + 0.5
    torch.testing.assert_close(scene.renderer(cameras).rgb, near, atol=0.03, rtol=0)
    assert float((near - 0.5).abs().max()) > 0.05 and seen.shape == (1, 2, 3, 8, 8)


def test_samples_follow_pictures_and_noise(task: Any, tmp_path: Path) -> None:
    path = tmp_path / "box.png"
    pixels = torch.zeros(32, 32, 4, dtype=torch.uint8)
    pixels[8:24, 6:26] = torch.tensor([200, 40, 40, 255], dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    one, same, other = (task.sample(1, ask("", path), seeded(seed))[0] for seed in (0, 0, 1))
    free = task.sample(1, None, seeded())[0]
    assert isinstance(one, Scene)
    tables = [s.geometry.colour for s in (one, same, other, free)]
    assert torch.equal(tables[0], tables[1])
    assert min(float((tables[0] - t).abs().mean()) for t in tables[2:]) > 1e-4
    with pytest.raises(UserError, match="reads no words"):
        task.sample(1, ask("a red mug"), seeded())


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.views=2 is too little.*needs 5"):
        tiny("data.views=2")
    with pytest.raises(UserError, match="data.images=3 is too little"):
        tiny("data.images=3")
    with pytest.raises(UserError, match=r"geometry.cells=9 does not fit network.volume=4: 3 or 7"):
        tiny("geometry.cells=9")
    with pytest.raises(UserError, match="no procedural object is a 'mugg'"):
        tiny("data.categories=[mugg]")
    for word, said in (("noisy=[0]", "without noise"), ("clean=[0]", "not all 0")):
        with pytest.raises(ConfigError, match=said):
            tiny(word)


def test_a_run_resumes_is_scored_and_starts_a_lift(tmp_path: Path) -> None:
    """A stopped run goes on as if it had not been, `eval` gives its table, a picture becomes an asset."""
    from plugins.viewset.evaluate import evaluate

    registry, few = get_registry(), [*TINY, "steps=3", "checkpoint_every=2", "keep=9"]
    whole = run_job(load_job("viewset-smoke", few, registry), registry, folder=tmp_path / "whole", quiet=True)
    job = load_job("viewset-smoke", few, registry)
    again = run_job(job, registry, resume=whole.checkpoints / "step-000002", quiet=True)
    assert again.state == "finished"
    states = [r.task().state_dict() for r in (whole, again)]  # type: ignore[attr-defined]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    table = evaluate(whole.folder, None, objects=2, draws=2, azimuth=90, samples=2, steps=2, output=tmp_path / "eval")
    assert list(table["views"]) == ["0 clean", "1 clean", "2 clean", "3 clean", "1 clean, one step"]
    assert {"given picture", "mean picture", "nearest training object"} == set(table["baselines"])
    assert all((tmp_path / "eval" / f"{name}.png").is_file() for name in ("viewset", "draws", "samples"))
    assert table["draws"]["1 clean"]["spread, back"] > 0
    assert set(table["from nothing"]) == {"unseen objects", "random weights", "samples"}
    picture = tmp_path / "box.png"
    pixels = torch.zeros(32, 32, 4, dtype=torch.uint8)
    pixels[8:24, 6:26] = torch.tensor([200, 40, 40, 255], dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(picture)
    words = ["steps=2", "preview_every=0", f"init.run={whole.folder}", "geometry.cells=7", "renderer.samples=8",
             "data.size=16", "export=[{type: sheet, size: 16, columns: 2}]"]  # fmt: skip
    lift = load_job("viewset", words, registry, {"image": str(picture)})
    done = run_job(lift, registry, folder=tmp_path / "lift", quiet=True)
    assert done.state == "finished" and list(done.assets.iterdir())


@torch.no_grad()
def test_scores_against_written_out_numbers() -> None:
    truth = torch.zeros(2, 3, 8, 8)
    assert vs.psnr(truth + 0.2, truth) == pytest.approx(20.0, abs=1e-4)  # a tenth of the range
    assert vs.ssim(truth, truth) == pytest.approx(1.0) and vs.ssim(-truth + 0.5, truth) < 0.9
    assert vs.spread([truth, truth + 0.4]) == pytest.approx(0.1)
