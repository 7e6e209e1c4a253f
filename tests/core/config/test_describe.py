from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from core.config.describe import Option, describe_options, example_yaml
from core.config.job import Job, JobConfig, StageConfig
from core.config.loading import load_job
from core.config.schedule import Schedule
from core.registry import Registry


def _config(registry: Registry, kind: str, name: str) -> type:
    found: type = registry.find(kind, name).load().Config
    return found


def _options(registry: Registry, kind: str, name: str) -> dict[str, Option]:
    return {o.name: o for o in describe_options(_config(registry, kind, name))}


def test_types_ranges_defaults_and_docs(registry: Registry) -> None:
    grid = _options(registry, "geometry", "grid")
    assert grid["levels"] == Option(
        "levels", "a whole number, at least 1, at most 32", 12, "Number of resolutions. Coarse to fine."
    )
    assert grid["growth"].type == "a number, more than 1"
    assert grid["size"].type == "a list of 2 values (each a whole number)"
    assert grid["size"].default == [64, 64]
    assert (grid["reach"].type, grid["reach"].choices) == ("a number or auto", ("auto",))
    assert grid["smooth"].choices == ("true", "false")
    assert grid["file"].type == "a path or null"


def test_slots_and_nesting(registry: Registry) -> None:
    lift = _options(registry, "task", "lift")
    assert (lift["geometry"].slot, lift["geometry"].required) == ("geometry", True)
    assert (lift["renderer"].slot, lift["renderer"].required) == ("renderer", False)
    assert lift["renderer"].type == "a renderer or null"
    assert lift["guidance[].prior"].slot == "prior"
    assert lift["guidance[].score"].default == "sds"
    assert lift["losses"].type == "a block of 'loss: schedule' lines"
    assert list(lift)[6:10] == ["guidance", "guidance[].prior", "guidance[].score", "guidance[].weight"]


def test_the_jobs_own_options() -> None:
    options = {o.name: o for config in (JobConfig, StageConfig) for o in describe_options(config)}
    assert options["optimizer.type"].choices == ("adam", "adamw", "sgd")
    assert options["optimizer.schedule"].default == 1.0
    assert options["listeners"].type == "a list (each a listener)"
    assert all(o.doc for o in options.values())


def test_no_options() -> None:
    assert describe_options(None) == []
    assert example_yaml("loss", "sparsity", None) == "losses:\n  sparsity: 1.0\n"
    assert example_yaml("geometry", "x", None) == "geometry: x\n"


def test_an_example_reads_well(registry: Registry) -> None:
    assert example_yaml("prior", "tiny", _config(registry, "prior", "tiny")) == (
        "prior:\n  type: tiny\n  # model:  # A public model's name; a text (required)\n  backup: null  # a prior or null\n"
    )


def test_examples_load(registry: Registry, folder: Path, load: Callable[..., Job]) -> None:
    text = "prompt: a\ntask: lift\n" + example_yaml("geometry", "grid", _config(registry, "geometry", "grid"))
    text += example_yaml("renderer", "volume", _config(registry, "renderer", "volume"))
    text += example_yaml("loss", "sparsity", None)
    options = load(text).stages[0].task.options
    assert options.geometry.options == _config(registry, "geometry", "grid")()
    assert options.losses == {"sparsity": Schedule.parse(1)}


def test_a_tasks_example_stands_at_the_top(registry: Registry, folder: Path) -> None:
    text = example_yaml("task", "lift", _config(registry, "task", "lift"))
    assert text.startswith('task: lift\nprompt: ""  # The sentence; a text\n')
    filled = text.replace("# geometry:  #", "geometry: grid  #")
    Path("job.yaml").write_text(filled)
    assert load_job("job.yaml", (), registry).stages[0].task.options.geometry.name == "grid"


def test_the_package_offers_what_it_lists() -> None:
    package = importlib.import_module("core.config")
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
