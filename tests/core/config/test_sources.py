"""Composition: ``extends``, merging, stages and overrides, and the place that each value keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.config.job import Job
from core.config.loading import load_job
from core.config.schedule import Schedule
from core.config.sources import find_file, preset_names
from core.errors import ConfigError
from core.registry import Registry

Write = Callable[..., None]
Load = Callable[..., Job]

BASE = """\
task: lift
prompt: a red chair

geometry:
  type: grid
  levels: 8
  growth: 1.3
renderer: volume
guidance:
  - prior: {type: tiny, model: base}
losses: {sparsity: 0.1}
optimizer: {lr: 0.05, betas: [0.5, 0.9]}
"""


@pytest.fixture
def write(folder: Path) -> Write:
    def _write(**files: str) -> None:
        for name, text in files.items():
            path = folder / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return _write


@pytest.fixture
def read(folder: Path, registry: Registry) -> Callable[..., Any]:
    """The task's options of ``job.yaml``."""
    return lambda *overrides, stage=0: load_job("job.yaml", overrides, registry).stages[stage].task.options


def refused(registry: Registry, *overrides: str, source: str | Mapping[str, Any] = "job.yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_job(source, overrides, registry)
    return caught.value.problems


def test_mappings_merge_and_lists_replace(write: Write, read: Callable[..., Any], registry: Registry) -> None:
    write(base=BASE, job="extends: base\ngeometry: {levels: 3}\nlosses: {orient: 2}\n"
          "renderer: {normals: true}\nguidance: []\noptimizer: {betas: [0.1, 0.2]}\n")
    options = read()
    assert (options.geometry.options.levels, options.geometry.options.growth) == (3, 1.3)
    assert options.renderer.name == "volume"  # the name below, the option above
    assert options.renderer.options.normals is True
    assert options.guidance == []
    assert options.losses == {"sparsity": Schedule.parse(0.1), "orient": Schedule.parse(2)}
    config = load_job("job.yaml", (), registry).stages[0].config
    assert (config.optimizer.lr, config.optimizer.betas) == (0.05, (0.1, 0.2))


def test_another_type_drops_the_options_of_the_old_one(write: Write, read: Callable[..., Any]) -> None:
    write(base=BASE, job="extends: base\ngeometry: {type: toys/mlp, width: 8}\n")
    assert read().geometry.options.width == 8
    write(job="extends: base\ngeometry: toys/mlp\n")
    assert read().geometry.options.width == 64
    write(job="extends: base\ngeometry: {type: grid, size: [2, 3]}\n")
    assert read().geometry.options.levels == 8  # the same type keeps them
    assert read().geometry.options.size == (2, 3)
    write(job="extends: base\ngeometry: grid\n")
    assert read().geometry.options.levels == 8


def test_the_optimizer_keeps_its_numbers(write: Write, registry: Registry) -> None:
    for line in ("optimizer: {type: sgd}", "optimizer: sgd"):
        write(base=BASE, job=f"extends: base\n{line}\n")
        optimizer = load_job("job.yaml", (), registry).stages[0].config.optimizer
        assert (optimizer.type, optimizer.lr) == ("sgd", 0.05)


def test_null_takes_a_loss_back(write: Write, read: Callable[..., Any]) -> None:
    write(base=BASE, job="extends: base\nlosses: {sparsity: null}\n")
    assert read().losses == {}
    assert read("losses.sparsity=3").losses == {"sparsity": Schedule.parse(3)}


def test_places_follow_extends(write: Write, registry: Registry) -> None:
    write(base=BASE.replace("levels: 8", "levels: 99").replace("growth: 1.3", "grwth: 1.3"),
          job="extends: base\n\nsteps: many\n")
    assert refused(registry) == [
        "job.yaml:3: steps: expected a whole number, found 'many'",
        "base.yaml:7: geometry.grwth: unknown key. Did you mean 'growth'?",
        "base.yaml:6: geometry.levels: expected at most 32, found 99",
    ]
    write(job="extends: base\ngeometry:\n  levels: 98\n")
    assert "job.yaml:3: geometry.levels: expected at most 32, found 98" in refused(registry)


def test_lists_folders_and_chains(write: Write, registry: Registry) -> None:
    write(sub__a=BASE, sub__b="extends: a\nseed: 1\nsteps: 1\n", c="seed: 2\nname: c\n",
          job="extends: [sub/b, c.yaml]\nkeep: 7\n")
    job = load_job("job.yaml", (), registry)
    assert (job.config.seed, job.config.name, job.config.keep, job.stages[0].config.steps) == (2, "c", 7, 1)


def test_one_file_may_be_extended_twice(write: Write, registry: Registry) -> None:
    write(base=BASE, a="extends: base\nseed: 1", b="extends: base\nkeep: 3", job="extends: [a, b]")
    config = load_job("job.yaml", (), registry).config
    assert (config.seed, config.keep) == (1, 3)


def test_a_circle(write: Write, registry: Registry) -> None:
    write(job="extends: a", a="\nextends: b", b="extends: [job]")
    assert refused(registry) == [
        "b.yaml:1: extends: the files extend one another in a circle: job.yaml -> a.yaml -> b.yaml -> job.yaml"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("extends: bsae", "job.yaml:2: extends: there is no file 'bsae'. Did you mean 'base'?"),
        ("extends: [base, {a: 1}]", "job.yaml:2: extends: expected the name of a file, found a block of keys"),
        ("extends: [base, null]", "job.yaml:2: extends: there is no file 'null'."),
    ],
)
def test_bad_extends(write: Write, registry: Registry, line: str, problem: str) -> None:
    write(base=BASE, job=f"seed: 1\n{line}\n")
    found = refused(registry)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_a_broken_file_below_is_all_that_is_reported(write: Write, registry: Registry) -> None:
    write(base="task: [", job="extends: base\nsteps: many\n")
    assert len(found := refused(registry)) == 1
    assert found[0].startswith("base.yaml:1: not valid YAML: ")


def test_a_job_may_carry_the_name_of_the_preset_it_extends(
    write: Write, registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(presets__job=BASE, presets__more__deep="", job="extends: job\nseed: 4\n")
    monkeypatch.setattr("core.config.sources.PRESETS", folder / "presets")
    assert load_job("job.yaml", (), registry).config.seed == 4
    assert preset_names() == ["job", "more/deep"]
    assert find_file("more/deep", folder) == (folder / "presets/more/deep.yaml").resolve()


def test_anchors_write_a_value_once(write: Write, read: Callable[..., Any]) -> None:
    write(job=BASE + "tags: &t [x, 5]\nextras: {again: *t, <<: {size: 3, again: 4}}\n")
    options = read()
    assert options.tags == ["x", "5"]
    assert options.extras == {"again": ["x", 5], "size": 3}


def test_an_empty_base_is_harmless(write: Write, registry: Registry) -> None:
    write(base="# nothing yet\n", job="extends: base\n" + BASE)
    assert load_job("job.yaml", (), registry).config.name == "job"


# -- overrides ---------------------------------------------------------------------------------------------------------


def test_overrides_reach_everywhere(write: Write, read: Callable[..., Any]) -> None:
    write(job=BASE)
    options = read(
        "geometry.levels=3", "guidance.0.weight=2", "guidance.0.score={type: sds, scale: 1e1}",
        "losses.sparsity={from: 0, to: 1e-3, end: 50%}", "losses.orient=1", "renderer.normals=true",
        "extras.a.b=[1, x]", "geometry.file=a b.txt", "geometry.smooth=TRUE",
    )  # fmt: skip
    assert options.geometry.options.levels == 3
    assert options.geometry.options.smooth is True
    assert options.geometry.options.file == Path("a b.txt")
    assert options.guidance[0].weight == Schedule.parse(2)
    assert options.guidance[0].score.options.scale == 10
    assert options.losses["sparsity"].at(0, 10) == 0
    assert options.losses["sparsity"].at(9, 10) == 1e-3
    assert options.renderer.options.normals is True
    assert options.extras == {"a": {"b": [1, "x"]}}


def test_a_changed_type_comes_first(write: Write, read: Callable[..., Any]) -> None:
    write(job=BASE)
    options = read("geometry.width=7", "geometry.type=toys/mlp").geometry.options
    assert (options.width, type(options).__qualname__) == (7, "Mlp.Config")


def test_the_last_of_two_wins(write: Write, read: Callable[..., Any]) -> None:
    write(job=BASE)
    assert read("geometry.levels=3", "geometry.levels=4").geometry.options.levels == 4


@pytest.mark.parametrize("value", ["1e3", "1000", "1_000", "1000.0", "+1000", "0x3e8"])
def test_whole_numbers(write: Write, registry: Registry, value: str) -> None:
    write(job=BASE)
    assert load_job("job.yaml", [f"steps={value}"], registry).stages[0].config.steps == 1000
    write(job=BASE + f"steps: {value}\n")
    assert load_job("job.yaml", (), registry).stages[0].config.steps == 1000


@pytest.mark.parametrize("value", ["1e-3", "1.0e-3", ".001", "0.001", "+1E-3"])
def test_fractions(write: Write, registry: Registry, value: str) -> None:
    write(job=BASE)
    assert load_job("job.yaml", [f"optimizer.lr={value}"], registry).stages[0].config.optimizer.lr == 1e-3


def test_extra_lies_between_file_and_overrides(write: Write, registry: Registry) -> None:
    write(job=BASE + "seed: 1\nkeep: 1\n")
    extra = {"seed": 2, "keep": 2, "output": None, "prompt": "from a flag"}
    job = load_job("job.yaml", ["seed=3"], registry, extra)
    assert (job.config.seed, job.config.keep, job.config.output) == (3, 2, Path("runs"))
    assert job.stages[0].task.options.prompt == "from a flag"
    assert "the command's options: keep: expected a whole number, found 'x'" in _problems_of(registry, {"keep": "x"})


def _problems_of(registry: Registry, extra: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_job("job.yaml", (), registry, extra)
    return caught.value.problems


# -- stages ------------------------------------------------------------------------------------------------------------

STAGES = BASE + "steps: 10\nstages:\n  - name: coarse\n  - {geometry: {levels: 3}, steps: 20}\n  - geometry: toys/mlp\n"


def test_stages_lie_over_the_top(write: Write, registry: Registry) -> None:
    write(job=STAGES)
    job = load_job("job.yaml", (), registry)
    assert [(s.index, s.config.name, s.config.steps) for s in job.stages] == [
        (0, "coarse", 10), (1, "stage-2", 20), (2, "stage-3", 10)
    ]  # fmt: skip
    assert [s.task.options.geometry.name for s in job.stages] == ["grid", "grid", "toys/mlp"]
    assert [getattr(s.task.options.geometry.options, "levels", None) for s in job.stages] == [8, 3, None]
    assert all(s.config.optimizer.lr == 0.05 for s in job.stages)


def test_without_stages_there_is_one(write: Write, registry: Registry) -> None:
    for end in ("", "stages: []\n", "stages: null\n"):
        write(job=BASE + end)
        job = load_job("job.yaml", (), registry)
        assert [s.config.name for s in job.stages] == ["main"]
        assert job.config.name == "job"


def test_a_problem_of_one_stage_says_which(write: Write, registry: Registry) -> None:
    write(job=STAGES)
    assert refused(registry, "stages.1.steps=0") == [
        "stages.1.steps=0 on the command line: steps: expected at least 1, found 0 (stage 'stage-2')"
    ]
    assert refused(registry, "keep=0", "prompt=") == [
        "keep=0 on the command line: keep: expected at least 1, found 0",
        "job.yaml:10: prior 'tiny' needs text; nothing here gives it. What does: a prompt (key 'prompt')",
    ]


def test_an_override_that_every_stage_hides(write: Write, registry: Registry) -> None:
    write(job=BASE + "stages:\n  - steps: 10\n  - steps: 20\n")
    assert refused(registry, "steps=1") == [
        "steps=1 on the command line: has no effect, every stage has its own steps; write stages.0.steps=…"
    ]
    job = load_job("job.yaml", ["stages.0.steps=1", "log_every=3"], registry)
    assert [s.config.steps for s in job.stages] == [1, 20]


def test_a_mapping_as_source(registry: Registry) -> None:
    source = {"task": "fit", "rounds": 3, "steps": "3", "wrong": 1}
    assert refused(registry, source=source) == [
        "the given mapping: steps: expected a whole number, found '3' in quotes, which make it a text",
        "the given mapping: wrong: unknown key. Known: accumulate, checkpoint_every, device, devices, extends, "
        "gradient_clip, keep, listeners, log_every, name, optimizer, output, ….",
    ]
