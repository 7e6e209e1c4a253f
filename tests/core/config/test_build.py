from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.config.base import ComponentSpec
from core.config.build import build
from core.config.job import Job
from core.contracts import Context
from core.errors import UserError
from core.registry import Registry

JOB = """\
task: lift
prompt: a red chair
geometry: {type: grid, levels: 8}
renderer: volume
guidance: [{prior: {type: tiny, model: a, backup: {type: tiny, model: b}}}]
losses: {sparsity: 0.1}
"""


def test_a_component_gets_its_options_and_its_context(load: Callable[..., Job], registry: Registry) -> None:
    spec = load(JOB).stages[0].task
    context = Context(seed=3)
    task = build(spec, context, registry)
    assert type(task).__name__ == "Lift"
    assert task.context is context
    assert task.options.geometry.options.levels == 8


def test_slots_are_built_through_the_context(load: Callable[..., Job], registry: Registry) -> None:
    context = Context()
    task = build(load(JOB).stages[0].task, context, registry)
    assert context.build is not None
    prior = context.build(task.options.guidance[0].prior)
    backup = prior.context.build(prior.options.backup)
    assert (prior.options.model, backup.options.model) == ("a", "b")
    other = replace(context, seed=9)
    assert build(task.options.geometry, other, registry).context.seed == 9
    assert other.build is not None
    assert other.build(task.options.geometry).context is other


def test_a_builder_of_the_callers_own_stays(load: Callable[..., Job], registry: Registry) -> None:
    def mine(spec: ComponentSpec) -> Any:
        return spec.name

    context = Context(build=mine)
    build(load(JOB).stages[0].task, context, registry)
    assert context.build is mine


def test_a_function_is_returned(registry: Registry) -> None:
    found = build(ComponentSpec("loss", "sparsity", None), Context(), registry)
    assert found is registry.find("loss", "sparsity").load()
    with pytest.raises(UserError, match="no loss named 'sparsty'"):
        build(ComponentSpec("loss", "sparsty", None), Context(), registry)


def test_a_components_own_check_that_fails_by_accident_is_a_problem() -> None:
    from pydantic import model_validator

    from core.config.base import Config
    from core.config.nodes import from_python
    from core.config.values import FAILED, Checker

    class Clumsy(Config):
        a: int = 0

        @model_validator(mode="after")
        def _check(self) -> Clumsy:
            if self.a == 1:
                raise UserError("not one")
            {}[self.a]
            return self

    for value, message in ((1, "here: x: not one"), (2, "here: x: cannot be checked: KeyError: 2")):
        checker = Checker(SimpleNamespace())
        assert checker.model(Clumsy, from_python({"a": value}, "there"), "x", "here") is FAILED
        assert checker.problems == [message]


def test_a_field_that_reads_itself() -> None:
    from pydantic import field_validator

    from core.config.base import Config
    from core.config.nodes import from_python
    from core.config.values import Checker

    class Square(Config):
        size: tuple[int, int] = (8, 8)

        @field_validator("size", mode="before")
        @classmethod
        def _both(cls, value: Any) -> Any:
            return (value, value) if isinstance(value, int) else value

    for written in (64, [64, 64]):
        checker = Checker(SimpleNamespace())
        assert checker.model(Square, from_python({"size": written}, ""), "", "").size == (64, 64)


def test_importing_configurations_imports_no_torch() -> None:
    code = "import sys, core.config as c; [getattr(c, n) for n in c.__all__]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3]).returncode == 0
