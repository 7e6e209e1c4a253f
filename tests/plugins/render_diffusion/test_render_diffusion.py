"""One picture, three planes: what the network may not hear, what a hole keeps, how noise is chosen, a run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from core.config.loading import load_job
from core.contracts import Step
from core.discovery import get_registry
from core.errors import UserError
from core.generative import view_scores as vs
from core.generative.drawing import ask
from core.generative.through_rendering import Seen
from core.job import run_job
from core.stages import build_task
from core.types import Cameras

TINY = (
    "data.images=12", "data.size=8", "rays=32", "samples=6", "batch=2", "geometry.resolution=8", "geometry.features=2",
    "geometry.hidden=4", "network.channels=[8, 8]", "network.attention=[]", "network.head=8",
    "look.renderer.samples=8", "look.renderer.grid=8",
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(*overrides: str) -> Any:
    job = load_job("render-diffusion-smoke", [*TINY, *overrides], get_registry())
    return build_task(job, get_registry(), 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def task() -> Any:
    return tiny()


def pictures(count: int = 2) -> tuple[Tensor, Cameras]:
    rgb = torch.rand(count, 3, 8, 8, generator=seeded(1)) * 2 - 1
    return rgb, Cameras.turntable(torch.arange(count) * 2.0, 0.3, 8)


@torch.no_grad()
def test_the_network_hears_picture_noise_and_guess_but_no_camera(task: Any) -> None:
    rgb, cameras = pictures()
    seen = Seen(rgb[:, None], torch.tensor([[100], [600]]), cameras, rgb[:, None].flip(-1))
    network = task.live["network"]
    planes = torch.stack([c["planes"] for c in network(seen)])
    assert planes.shape == (2, 3, 2, 8, 8)
    elsewhere = replace(seen, cameras=Cameras.turntable(torch.tensor([3.0, 1.0]), -0.5, 8))
    assert torch.equal(planes, torch.stack([c["planes"] for c in network(elsewhere)]))
    changed = replace(seen, t=seen.t + 300), replace(seen, guess=seen.guess * 0), replace(seen, rgb=-seen.rgb)
    apart = [(planes - torch.stack([c["planes"] for c in network(s)])).abs().mean().item() for s in changed]
    assert min(apart) > 1e-6, apart


def test_only_the_view_itself_is_supervised_and_the_decoder_learns_too(task: Any) -> None:
    losses = task.training_step(Step(0, 10))
    assert set(losses) == {"seen"}
    losses["seen"].backward()
    decoder = task.live["look"].geometry
    assert all(float(p.grad.abs().sum()) > 0 for p in (*decoder.first.parameters(), *decoder.second.parameters()))
    assert decoder.planes.grad is None and not decoder.planes.any(), "the planes are the network's"
    assert all(p.grad is not None for p in task.live["network"].parameters())
    task.zero_grad(set_to_none=True)


@torch.no_grad()
def test_a_hole_keeps_what_is_known_under_its_own_noise(task: Any) -> None:
    rgb, cameras = pictures(1)
    hole = torch.zeros(1, 1, 8, 8)
    hole[..., 4:] = 1
    heard: list[tuple[Tensor, Tensor]] = []
    network = task.average.model["network"]
    task.average.model["network"], kept = Spy(network, heard), network
    try:
        task.inpainted(rgb, hole, cameras, seeded(5), steps=4)
    finally:
        task.average.model["network"] = kept
    start = torch.randn(1, 1, 3, 8, 8, generator=seeded(5))
    assert torch.equal(heard[0][0], start)
    noise = (start - task.process.scales(heard[0][1][:, 0], start)[0] * rgb[:, None]) / task.process.scales(
        heard[0][1][:, 0], start
    )[1]
    for x, t in heard[1:]:
        own = task.process.add_noise(rgb[:, None], noise, t[:, 0])
        torch.testing.assert_close(x[..., :4], own[..., :4], atol=1e-4, rtol=1e-4)
        assert float((x - own)[..., 4:].abs().mean()) > 1e-3


class Spy(torch.nn.Module):
    """Notes what a network is shown."""

    def __init__(self, network: Any, heard: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.network, self.heard = network, heard

    def forward(self, seen: Seen) -> Any:
        self.heard.append((seen.rgb, seen.t))
        return self.network(seen)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_earlier_answer_is_heard_only_where_training_showed_one(share: float) -> None:
    task = tiny(f"self_condition={share}")
    heard: list[float] = []
    network = task.average.model["network"]

    def note(_: Any, args: tuple[Seen]) -> None:
        heard.append(float(args[0].guess.abs().sum()))

    network.register_forward_pre_hook(note)
    task.draw(1, seeded(), steps=3)
    assert heard[0] == 0 and all((value > 0) == (share > 0) for value in heard[1:])


@torch.no_grad()
def test_pictures_enter_and_planes_leave_in_squares_of_pixels() -> None:
    task = tiny("network.patch=2")
    network = task.live["network"]
    assert network.unet.config.in_channels == 6 * 4 and network.unet.config.sample_size == 4
    rgb, cameras = pictures(1)
    (code,) = network(Seen(rgb[:, None], torch.tensor([[100]]), cameras, 0 * rgb[:, None]))
    assert code["planes"].shape == (3, 2, 8, 8)
    with pytest.raises(UserError, match="cannot be cut into squares of 8 pixels, and these halved 1 times"):
        tiny("network.patch=8")


@torch.no_grad()
def test_a_given_picture_starts_where_its_noise_says(task: Any) -> None:
    rgb, cameras = pictures(2)
    network = task.average.model["network"]
    for level, first, calls in ((0.0, 1, 1), (0.5, 499, 3), (1.0, 999, 5)):
        heard: list[tuple[Tensor, Tensor]] = []
        task.average.model["network"] = Spy(network, heard)
        try:
            task.reconstructed(rgb, cameras, level, seeded(), steps=5)
        finally:
            task.average.model["network"] = network
        assert len(heard) == calls and heard[0][1].tolist() == [[first]] * 2
        x, share = heard[0][0], float(task.process.alphas_cumprod[first])
        noise = torch.randn(2, 1, 3, 8, 8, generator=seeded())
        wanted = math.sqrt(share) * rgb[:, None] + math.sqrt(1 - share) * noise if level else rgb[:, None]
        torch.testing.assert_close(x, wanted.float())


@torch.no_grad()
def test_a_sample_is_a_triplane_that_looks_as_it_was_denoised(task: Any) -> None:
    (code,) = task.draw(1, seeded(), steps=2)
    scene = task.scene(code)
    points = torch.rand(50, 3, generator=seeded()) * 2 - 1
    look = task.average.model["look"]
    mine = torch.func.functional_call(look, {"geometry.planes": code["planes"]}, (points, points))
    found = scene.geometry.field(points)
    assert torch.equal(found["density"], mine[0]) and torch.equal(scene.geometry.planes, code["planes"])
    assert float(found["density"].std()) > 0


def test_what_is_wrong_is_said(task: Any, tmp_path: Path) -> None:
    picture = tmp_path / "box.png"
    pixels = torch.zeros(32, 32, 4, dtype=torch.uint8)
    pixels[8:24, 6:26] = torch.tensor([200, 40, 40, 255], dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(picture)
    with torch.no_grad():
        whole = task.sample(1, ask("", picture), seeded())[0]
    assert float(whole.geometry.planes.detach().abs().mean()) > 0
    with pytest.raises(UserError, match="reads no words"):
        task.sample(1, ask("a mug"), seeded())
    with pytest.raises(UserError, match=r"hole: .*none.png cannot be read"):
        tiny(f"hole={tmp_path / 'none.png'}").sample(1, ask("", picture), seeded())
    with pytest.raises(UserError, match="geometry.resolution=9 is not data.size=8"):
        tiny("geometry.resolution=9")
    with pytest.raises(UserError, match="data.images=1 is too little"):
        tiny("data.images=1")
    with pytest.raises(UserError, match="'voxel' has no 'planes' for the network to fill"):
        tiny("geometry={type: voxel, cells: 7}")


def test_a_run_is_fitted_and_scored(tmp_path: Path) -> None:
    from plugins.render_diffusion.evaluate import evaluate

    job = load_job("render-diffusion-smoke", [*TINY, "steps=2", "checkpoint_every=2"], get_registry())
    run = run_job(job, get_registry(), folder=tmp_path / "run", quiet=True)
    assert run.state == "finished"
    table = evaluate(run.folder, None, objects=2, steps=2, samples=2, output=tmp_path / "eval")
    assert {"psnr, given", "psnr", "ssim", "depth"} == set(table["reconstruction"]["noise 0"])
    assert set(table["holes"]) == {"filled", "grey in the hole"}
    assert set(table["from nothing"]) == {"unseen objects", "random weights", "samples"}
    assert {"psnr, patch", "psnr, grain"} < set(table["damaged pictures"]["noise 0.2"])
    assert all((tmp_path / "eval" / f"{name}.png").is_file() for name in ("render-diffusion", "samples"))
    with pytest.raises(UserError, match="is a run of 'render-diffusion', not of Viewset"):
        from plugins.viewset.viewset import Viewset

        vs.opened(run.folder, Viewset)
