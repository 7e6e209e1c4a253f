"""MeshDiffusion on a small grid: the mask, folding, closed samples, what a class and known signs do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh

from core.config.loading import load_job
from core.contracts import Scene, Step
from core.discovery import get_registry
from core.errors import UserError
from core.generative.drawing import ask, draw
from core.job import run_job
from core.stages import build_task
from core.testing import check_component
from plugins.mesh_diffusion.unet import NetworkConfig, Unet3d, folded, unfolded


def made(*overrides: str) -> Any:
    job = load_job("mesh-diffusion-smoke", list(overrides), get_registry())
    return build_task(job, get_registry(), 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("MAQUETTE_CACHE", str(tmp_path_factory.mktemp("cache")))
    task = made()
    task.pool  # noqa: B018  fitted now, into the test's own folder
    patch.undo()
    return task


def lively(mask: torch.Tensor, fold: int = 2) -> Unet3d:
    """A network whose last layers do not start at zero."""
    torch.manual_seed(0)
    net = Unet3d(NetworkConfig(channels=8, widths=[1, 2], blocks=1, attention=[4], fold=fold), mask, 2).eval()
    for p in net.parameters():
        p.data = p.data + 0.05 * torch.randn_like(p)
    return net


def test_the_command_keeps_its_contract() -> None:
    assert check_component("command", "eval-mesh-diffusion")


def test_folding_moves_blocks_into_channels_and_back() -> None:
    x = torch.arange(2 * 3 * 4**3).float().view(2, 3, 4, 4, 4)
    y = folded(x, 2)
    assert y.shape == (2, 24, 2, 2, 2) and torch.equal(unfolded(y, 2), x)
    assert torch.equal(y[0, :8, 1, 0, 1], x[0, 0, 2:4, 0:2, 2:4].flatten())
    assert torch.equal(folded(x, 1), x)


@pytest.mark.parametrize("fold", [1, 2])
def test_cells_that_are_no_vertices_say_and_hear_nothing(task: Any, fold: int) -> None:
    mask = task.space.grid.mask
    net = lively(mask, fold)
    x, t, label = torch.randn(2, 4, 16, 16, 16), torch.tensor([10, 900]), torch.tensor([0, -1])
    with torch.no_grad():
        answer = net(x, t, label)
        other = net(x + 5 * (1 - mask), t, label)
        named = net(x, t, torch.tensor([1, -1]))
    assert torch.equal(answer, other)
    assert not (answer * (1 - mask)).any() and (answer * mask).std() > 1e-3
    assert not torch.equal(named[0], answer[0]) and torch.equal(named[1], answer[1])


def test_the_loss_counts_vertices_alone(task: Any) -> None:
    """A network that answers nothing errs by the mean square of what was wanted, over the vertices."""
    losses = task.training_step(Step(0, 6, 0))
    values, _ = task.pool
    assert set(losses) == {"sign", "offset"}
    step = Step(0, 6, 0)
    chosen = torch.randint(len(values), (2,), generator=step.generator("shapes"))
    move = (torch.rand(2, 1, 3, generator=step.generator("moved")) * 2 - 1) * task.options.moved
    rows = values[chosen].clone()
    rows[..., 1:] += move * (rows[..., 1:] != 0)
    step.generator("untold")
    noise = torch.randn(2, 4, 16, 16, 16, generator=step.generator("noise"))
    t = torch.randint(1000, (2,), generator=step.generator("t"))
    a, s = task.process.scales(t, rows)
    wanted = a * task.space.grid.from_cube(noise) - s * rows  # v of the untrained network's zero answer
    assert float(losses["sign"]) == pytest.approx(float(wanted[..., 0].square().mean()) / 4, rel=1e-4)
    assert float(losses["offset"]) == pytest.approx(float(wanted[..., 1:].square().mean()) * 3 / 4, rel=1e-4)


def test_a_perfect_network_draws_the_shape_itself_closed(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values, _ = task.pool
    cube = task.space.grid.to_cube(values[:1])

    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            a, s = task.process.scales(t, x)
            return (a * x - cube) / s  # v whose x0 is the shape

    monkeypatch.setitem(task.average._modules, "model", Knows())
    drawn = task.walk(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert torch.allclose(drawn[0], values[0], atol=1e-4)
    mesh = task.mesh(drawn[0])
    closed = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert closed.is_watertight and closed.volume > 0


def test_known_signs_stay_until_they_are_let_go(task: Any) -> None:
    task.average.model.last[2].bias.data[0] = 0.0
    signs = task.pool[0][:1, :, 0]
    where = torch.zeros_like(signs, dtype=torch.bool)
    where[:, ::2] = True
    held = task.walk(torch.tensor([0]), torch.Generator().manual_seed(0), (signs, where), until=0.0)
    assert torch.equal(held[..., 0][where], signs[where])
    free = task.walk(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert not torch.equal(free[..., 0][where], signs[where])


def test_samples_follow_from_the_seed_and_the_class(task: Any) -> None:
    first, again = (task.walk(task.labels(ask("a rocket"), 1), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert task.labels(ask("a rocket"), 2).tolist() == [1, 1] and task.labels(None, 3).tolist() == [0, 1, 0]
    with pytest.raises(UserError, match="it was fitted to: mug, rocket"):
        task.labels(ask("a castle"), 1)


@pytest.mark.parametrize(
    ("override", "word"),
    [("data.count=1", "data.count=1 is too little"), ("resolution=20", "resolution=20 must be a multiple of 8"),
     ("data=procedural-points", "gives no solids"), ("data.categories=[dragon]", "no kind of procedural object")],
)  # fmt: skip
def test_what_cannot_be_trained_is_said(override: str, word: str) -> None:
    overrides = ["network.fold=4"] if override.startswith("resolution") else []
    with pytest.raises(UserError, match=word):
        made(override, *overrides)


def test_a_run_is_fitted_and_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    registry = get_registry()
    run = run_job(load_job("mesh-diffusion-smoke", [], registry), registry, folder=tmp_path / "run", quiet=True)
    assert run.state == "finished" and list((tmp_path / "cache").glob("grids-*.pt"))
    task: Any = run.task()
    ball = torch.zeros(len(task.space.grid), 4)
    ball[:, 0] = (task.space.grid.positions(0.95).norm(dim=1) - 0.6).sign()

    def answers(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        a, s = task.process.scales(t, x)
        return (a * x - task.space.grid.to_cube(ball)) / s

    # Six steps teach nothing: the network's answers are those of one that knows a ball.
    monkeypatch.setattr(task.average.model, "forward", answers)
    [drawn] = draw(task, 1, 0)
    assert isinstance(drawn, Scene)
    radii = drawn.geometry.surface().vertices.norm(dim=1)
    assert float(radii.min()) > 0.45 and float(radii.max()) < 0.75
    nothing = ball.abs()
    with pytest.raises(UserError, match="came out empty"):
        task._scene(nothing, "")
