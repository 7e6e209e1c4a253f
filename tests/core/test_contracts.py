"""Random streams: each depends on its own keys and on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.contracts import Context, Geometry, Module, Step, stream_seed

ROOT = Path(__file__).parents[2]


def test_a_seed_depends_on_every_part_and_on_their_order() -> None:
    keys: list[tuple[int | str, ...]] = [
        (), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**32,), (2**32 + 1,), (2**63,),
        ("",), ("a",), ("b",), ("ab",), ("a", "b"), ("b", "a"), ("", "ab"), ("ab", ""), (0, "a"), ("a", 0), ("é",),
    ]  # fmt: skip
    seeds = [stream_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [stream_seed(*key) for key in keys]


def test_seeds_are_those_of_a_fresh_process_whatever_its_hash_seed() -> None:
    """The definition, restated: words of each part and a separator, through NumPy's SeedSequence, 63 bits."""
    words = [5, 0, 0x9E3779B9, *b"noise", 0x9E3779B9]
    assert stream_seed(5, "noise") == int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) >> 1
    code = "from core.contracts import stream_seed; print(stream_seed(5, 'noise'))"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(out.stdout) == stream_seed(5, "noise")


def test_neighbouring_seeds_give_unrelated_streams() -> None:
    draws = torch.stack([torch.randn(2000, generator=Step(i, 10).generator("x")) for i in range(8)])
    correlation = torch.corrcoef(draws) - torch.eye(8)
    assert float(correlation.abs().max()) < 4.5 / 2000**0.5
    assert abs(float(draws.mean())) < 4.5 / 16000**0.5


@pytest.mark.parametrize("change", [{"index": 4}, {"seed": 1}, {"stage": 1}, {"micro": 1}])
def test_a_step_stream_changes_with_index_seed_stage_and_micro_batch(change: dict[str, int]) -> None:
    base = {"index": 3, "total": 10, "seed": 0, "stage": 0, "micro": 0}
    step, other = Step(**base), Step(**base | change)
    assert step.stream("x") != other.stream("x")
    assert step.stream("x") != step.stream("y")
    assert Step(**base | {"total": 99}).stream("x") == step.stream("x")  # a longer run takes the same first steps


def test_a_stream_is_the_same_each_time_it_is_asked_for_and_leaves_the_global_one_alone() -> None:
    step = Step(3, 10, seed=7)
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    first, second = (torch.rand(4, generator=step.generator("noise")) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.rand(3), wanted)


def test_what_a_step_logs_is_kept_by_name() -> None:
    step = Step(0, 1)
    step.log(psnr=20.0, norm=1.0)
    step.log(norm=2.0)
    assert step.metrics == {"psnr": 20.0, "norm": 2.0}
    assert Step(0, 1).metrics == {}


def test_initial_values_of_a_component_do_not_depend_on_the_others() -> None:
    def draw(context: Context, name: str) -> torch.Tensor:
        return torch.rand(5, generator=context.generator(name))

    alone, busy = Context(seed=3), Context(seed=3)
    draw(busy, "table")
    assert torch.equal(draw(alone, "net"), draw(busy, "net"))
    assert not torch.equal(draw(alone, "net"), draw(alone, "table"))
    assert not torch.equal(draw(alone, "net"), draw(Context(seed=4), "net"))
    assert not torch.equal(draw(alone, "net"), torch.rand(5, generator=Step(0, 1, seed=3).generator("net")))


def test_a_module_offers_its_trainable_parameters_to_the_optimiser() -> None:
    class Pair(Module):
        def __init__(self, options: Any, context: Context) -> None:
            super().__init__(options, context)
            self.free, self.fixed = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)

    pair = Pair(None, Context())
    (group,) = pair.param_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in pair.free.parameters()}


def test_a_geometry_says_what_it_cannot_do() -> None:
    class Nothing(Geometry):
        """Gives nothing."""

    nothing = Nothing(None, Context())
    at = torch.zeros(1, 3)
    asked = [
        lambda: nothing.density(at),
        lambda: nothing.sdf(at),
        lambda: nothing.mesh(8),
        lambda: nothing.init_from(nothing),
    ]
    for ask in asked:
        with pytest.raises(NotImplementedError, match="Nothing"):
            ask()
