"""The arithmetic of a step: accumulation, clipping, rates, streams, precision, and the guard against NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from core.config.job import OptimizerConfig
from core.config.schedule import Schedule
from core.contracts import Context, Step, Task
from core.errors import NonFiniteLoss, UserError
from core.job import make_fabric
from core.loop import Loop

from loop_tasks import Wave, make_job  # isort: skip


class Plain(Task):
    """A task made of one module and one function of it and of the step."""

    def __init__(self, module: nn.Module, losses: Callable[[nn.Module, Step], Any], scale: float = 1.0) -> None:
        super().__init__(None, Context())
        self.module, self.losses, self.scale = module, losses, scale

    def param_groups(self) -> list[dict[str, Any]]:
        first, *rest = self.module.parameters()
        return [{"params": [first]}, {"params": rest, "lr_scale": self.scale}, {"params": []}]

    def training_step(self, step: Step) -> dict[str, Tensor]:
        return self.losses(self.module, step)


def looped(task: Task, total: int = 10, precision: str = "32-true", **options: Any) -> Loop:
    names = ("accumulate", "gradient_clip", "seed", "stage")
    own = {k: options.pop(k) for k in names if k in options}
    job = make_job(precision=precision)
    return Loop(make_fabric(job.config), task, OptimizerConfig(**options), total, **own)


def mlp(seed: int = 0, width: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))


def test_fits_a_function() -> None:
    def loss(net: nn.Module, step: Step) -> dict[str, Tensor]:
        x = torch.rand(64, 2, generator=step.generator("x")) * 2 - 1
        return {"error": (net(x)[:, 0] - x[:, 0] * x[:, 1]).square().mean()}

    loop = looped(Plain(mlp(width=32), loss), 400, lr=0.02)
    values = [loop.take(i).losses["error"] for i in range(400)]
    assert values[0] > 0.1 and max(values[-10:]) < 2e-3


@pytest.mark.parametrize("rule", ["adam", "adamw", "sgd"])
def test_accumulation_equals_one_big_batch(rule: str) -> None:
    def micro(step: Step, index: int) -> Tensor:
        generator = Step(step.index, step.total, step.seed, step.stage, index).generator("x")
        return torch.rand(5, 2, generator=generator, dtype=torch.float64)

    def error(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        return {"a": (net(x) - 1).square().mean(), "b": net(x).abs().mean()}

    small = Plain(mlp().double(), lambda net, step: error(net, micro(step, step.micro)))
    big = Plain(mlp().double(), lambda net, step: error(net, torch.cat([micro(step, k) for k in range(4)])))
    loops = [looped(small, accumulate=4, type=rule, eps=1e-8), looped(big, type=rule, eps=1e-8)]
    for index in range(10):
        reports = [loop.take(index) for loop in loops]
        for name in ("a", "b", "total"):
            assert reports[0].losses[name] == pytest.approx(reports[1].losses[name], abs=1e-12)
        assert reports[0].grad_norm == pytest.approx(reports[1].grad_norm, abs=1e-12)
    for p, q in zip(small.parameters(), big.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-12, rtol=0)


def test_metrics_are_averaged_over_micro_batches() -> None:
    def loss(net: nn.Module, step: Step) -> dict[str, Tensor]:
        step.log(micro=step.micro)
        return {"x": net(torch.ones(1, 2)).sum()}

    assert looped(Plain(mlp(), loss), accumulate=4).take(0).metrics == {"micro": 1.5}


def constant_pull(net: nn.Module, step: Step) -> dict[str, Tensor]:
    return {"pull": 3.0 * net[0].weight.sum() + 4.0 * net[2].bias.sum()}


def test_rates_follow_schedule_and_group_scale() -> None:
    schedule = Schedule.parse({"from": 1.0, "to": 0.0, "start": 2, "end": "100%"})
    task = Plain(mlp(), constant_pull, scale=0.25)
    before = [task.module[0].weight.detach().double(), task.module[2].bias.detach().double()]
    loop = looped(task, 6, type="sgd", lr=0.1, betas=(0.0, 0.99), schedule=schedule)
    rates = [loop.take(i).rate for i in range(6)]
    assert rates == pytest.approx([0.1 * f for f in (1, 1, 1, 2 / 3, 1 / 3, 0)])
    moved = [before[0] - task.module[0].weight, before[1] - task.module[2].bias]
    torch.testing.assert_close(moved[0], torch.full_like(moved[0], 3 * sum(rates)), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[1], torch.full_like(moved[1], 4 * 0.25 * sum(rates)), atol=1e-6, rtol=0)


def test_gradient_is_clipped_as_a_whole() -> None:
    task = Plain(mlp(), constant_pull)
    before = [p.detach().clone() for p in task.parameters()]
    loop = looped(task, type="sgd", lr=1.0, betas=(0.0, 0.99), gradient_clip=0.5)
    norm = math.sqrt(16 * 9 + 16)
    assert loop.take(0).grad_norm == pytest.approx(norm, rel=1e-6)
    moved = torch.cat([(p - q).detach().flatten() for p, q in zip(before, task.parameters(), strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)


def poisoned(bad: str) -> Callable[[nn.Module, Step], dict[str, Tensor]]:
    def losses(net: nn.Module, step: Step) -> dict[str, Tensor]:
        value = net(torch.ones(1, 2)).sum()
        if step.index == 2 and bad == "gradient":  # sqrt'(0) is infinite, 0 times it is NaN, the value is finite
            value = value + torch.sqrt(net[0].bias * 0).sum()
        return {"good": value, "spoilt": value * (float(bad) if step.index == 2 and bad != "gradient" else 1)}

    return losses


@pytest.mark.parametrize(
    ("bad", "said"), [("nan", "step 2: loss 'spoilt' is nan"), ("inf", "'spoilt' is -?inf"), ("gradient", "0.bias")]
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_guard_names_what_is_not_finite_before_anything_moves(bad: str, said: str, clip: float | None) -> None:
    task = Plain(mlp(), poisoned(bad))
    loop = looped(task, gradient_clip=clip)
    loop.take(0), loop.take(1)
    before = [p.detach().clone() for p in task.parameters()]
    with pytest.raises(NonFiniteLoss, match=said) as caught:
        loop.take(2)
    assert "'good'" not in str(caught.value)
    assert all(torch.equal(p, q) for p, q in zip(before, task.parameters(), strict=True))


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (lambda net, step: {}, "gave no loss"),
        (lambda net, step: {"flat": torch.ones(())}, "none of the losses \\(flat\\) depends"),
        (lambda net, step: {"wide": net(torch.ones(3, 2))}, "'wide' must be .* not a tensor \\[3, 1\\]"),
        (lambda net, step: {"word": 3.0}, "'word' must be .* not float"),
    ],
)
def test_losses_that_cannot_be_followed(losses: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        looped(Plain(mlp(), losses)).take(0)


def test_nothing_to_optimise() -> None:
    task = Plain(mlp(), constant_pull)
    task.param_groups = lambda: []  # type: ignore[method-assign]
    with pytest.raises(UserError, match="Plain has no trainable parameter"):
        looped(task)


def wave(seed: int = 0) -> Wave:
    return Wave(Wave.Config(), Context(seed=seed))


def test_a_step_depends_on_its_place_alone() -> None:
    """Also dropout, which draws from torch's global stream, whatever was drawn in between."""
    first, second = looped(wave(), seed=3), looped(wave(), seed=3)
    for index in range(8):
        first.take(index)
    for index in range(4):
        second.take(index)
        torch.rand(5)
    third = looped(wave(seed=9), seed=3)
    third.task.load_state_dict(second.task.state_dict())
    third.load_state(second.state())
    for index in range(4, 8):
        torch.rand(index)
        third.take(index)
    for name, value in first.task.state_dict().items():
        assert torch.equal(value, third.task.state_dict()[name]), name
    for seed, stage in ((4, 0), (3, 1)):
        other = looped(wave(), seed=seed, stage=stage)
        assert other.take(0).losses["error"] != looped(wave(), seed=3).take(0).losses["error"]


def test_loaded_state_keeps_the_configured_rule() -> None:
    loop = looped(wave(), betas=(0.5, 0.6))
    loop.take(0)
    other = looped(wave(), betas=(0.9, 0.99))
    other.load_state(loop.state())
    assert other.scheduled.raw.param_groups[0]["betas"] == (0.9, 0.99)
    assert int(other.scheduled.raw.state_dict()["state"][0]["step"]) == 1
    with pytest.raises(UserError, match="does not fit"):
        looped(Plain(mlp(), constant_pull)).load_state(loop.state())


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_precision_reaches_the_task_and_spares_the_weights(precision: str, dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    def loss(net: nn.Module, step: Step) -> dict[str, Tensor]:
        x = torch.rand(64, 2, generator=step.generator("x")) * 2 - 1
        y = net(x)
        seen.append(y.dtype)
        return {"error": (y[:, 0] - x[:, 0]).square().mean(), "low": 0.0 * y.mean()}

    task = Plain(mlp(), loss)
    loop = looped(task, 200, precision)
    values = [loop.take(i).losses["total"] for i in range(200)]
    assert set(seen) == {dtype}
    assert all(p.dtype == torch.float32 for p in task.parameters())
    assert values[-1] < 5e-3 < values[0]


def test_loss_scaling_survives_a_resume() -> None:
    """fp16: gradients that overflow under the loss scale cost an update and lower the scale; they are no error."""

    def loss(net: nn.Module, step: Step) -> dict[str, Tensor]:
        return {"big": (100.0 if step.index == 0 else 1.0) * net(torch.ones(1, 2)).square().sum()}

    def scaled(task: Task) -> Loop:
        fabric = Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu")])
        return Loop(fabric, task, OptimizerConfig(), 10)

    task = Plain(mlp(), loss)
    loop = scaled(task)
    before = task.module[0].weight.detach().clone()
    loop.take(0)
    assert torch.equal(before, task.module[0].weight)
    state = loop.state()
    assert state["precision"]["scale"] == 65536 / 2
    other = scaled(Plain(mlp(), loss))
    other.load_state(state)
    assert other.state()["precision"]["scale"] == 65536 / 2
    for index in range(1, 10):
        loop.take(index)
    assert not torch.equal(before, task.module[0].weight)


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has it")
    config = make_job().config.model_copy(update={"device": "cuda"})
    with pytest.raises(UserError, match="device: cuda"):
        make_fabric(config)
