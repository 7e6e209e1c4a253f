"""Every mistake is named with its place, what was expected and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.config.job import Job
from core.config.loading import load_job
from core.errors import ConfigError, UserError
from core.registry import Registry

Problems = Callable[..., list[str]]

GOOD = """\
task: lift
prompt: a red chair
geometry: {type: grid, levels: 8}
renderer: volume
guidance:
  - prior: {type: tiny, model: base}
losses: {sparsity: 0.1}
"""


def test_the_good_one_is_good(load: Callable[..., Job]) -> None:
    assert load(GOOD).stages[0].task.options.geometry.options.levels == 8


@pytest.mark.parametrize(
    ("line", "written", "message"),
    [
        (8, "stps: 3", "stps: unknown key. Did you mean 'steps'?"),
        (8, "promt: x", "promt: unknown key. Did you mean 'prompt'?"),
        (8, "xyzzy: 1", "xyzzy: unknown key. Known: accumulate, checkpoint_every,"),
        (8, "steps: many", "steps: expected a whole number, found 'many'"),
        (8, "steps: 1.5", "steps: expected a whole number, found 1.5"),
        (8, "steps: true", "steps: expected a whole number, found true"),
        (8, 'steps: "3"', "steps: expected a whole number, found '3' in quotes, which make it a text"),
        (8, "steps: 0", "steps: expected at least 1, found 0"),
        (8, "steps: [1]", "steps: expected a whole number, found a list"),
        (8, "steps:", "steps: expected a whole number, found nothing"),
        (8, "seed: -1", "seed: expected at least 0, found -1"),
        (8, "gradient_clip: 0", "gradient_clip: expected more than 0, found 0"),
        (8, "device: gpu", "device: expected one of auto, cpu, cuda, mps; found 'gpu'"),
        (8, "device: cudaa", "device: expected one of auto, cpu, cuda, mps; found 'cudaa'. Did you mean 'cuda'?"),
        (8, "precision: 16", "precision: expected one of 32-true, bf16-mixed, 16-mixed, auto; found 16"),
        (8, "optimizer: 3", "optimizer: expected a block of options (type, lr, betas,"),
        (8, "optimizer: {tipe: sgd}", "optimizer.tipe: unknown key. Did you mean 'type'?"),
        (8, "optimizer: {betas: [0.9]}", "optimizer.betas: expected a list of 2 values (each a number), found 1"),
        (8, "optimizer: {betas: [0.9, 1]}", "optimizer.betas.1: expected less than 1, found 1"),
        (8, "optimizer: {betas: [0.9, .nan]}", "optimizer.betas.1: expected a number, found .nan"),
        (8, "optimizer: {schedule: up}", "optimizer.schedule: a schedule is a number, {from: a, to: b"),
        (8, "listeners: note", "listeners: expected a list (each a listener), found 'note'"),
        (8, "listeners: [not]", "listeners.0: no listener named 'not'. Did you mean 'note'?"),
        (8, "listeners: [{txt: 1}]", "listeners.0: expected a listener ({type: NAME, …}), found no type in it."),
        (8, "listeners: [{type: note, txt: 1}]", "listeners.0.txt: unknown key. Did you mean 'text'?"),
        (8, "extras: 1", "extras: expected a block of 'name: value' lines, found 1"),
        (8, "tags: a", "tags: expected a list (each a text), found 'a'"),
        (8, "tags:\n  - a\n  - b: c", "tags.1: expected a text, found a block of keys"),
        (8, "image: {a: 1}", "image: expected a path, found a block of keys"),
        (8, "image: ''", "image: expected a path, found ''"),
        (8, "seed: 1\nseed: 2", "'seed' is written twice (first on line 8)"),
        (8, "seed: !hex 12", "the tag '!hex' means nothing here"),
        (8, "? [a, b]\n: 3", "a key must be a single word, not a list or a block"),
        (8, "extras: {list: &a [*a]}", "an alias refers to what it is part of"),
        (8, "<<: 3", "'<<' takes a mapping or a list of mappings"),
        (8, "plugins: {require: [toy]}", "plugins.require: there is no plugin 'toy'. Did you mean 'toys'?"),
        (8, "plugins: {require: [gone]}", "plugins.require: plugin 'gone' did not load: it is broken"),
        (8, "plugins: {disable: [xyzzy]}", "plugins.disable: there is no plugin 'xyzzy'. Known: gone, other, toys."),
        (8, "stages: 3", "stages: expected a list of blocks of keys, found 3"),
        (8, "stages: [coarse]", "stages: expected a list of blocks of keys, found 'coarse'"),
        (8, "stages: [{seed: 3}]", "stages.0.seed: it holds for the whole job; write it at the top"),
        (8, "stages: [{stps: 3}]", "stps: unknown key. Did you mean 'steps'?"),
        (8, "stages: [{name: a}, {name: a}]", "stages.1.name: another stage is called 'a' already"),
        (3, "geometry: gird", "geometry: no geometry named 'gird'. Did you mean 'grid'?"),
        (3, "geometry: {type: gird, levels: 3}", "geometry: no geometry named 'gird'. Did you mean 'grid'?"),
        (3, "geometry: sds", "geometry: no geometry named 'sds'. 'sds' is a score."),
        (3, "geometry: voxels", "geometry: no geometry named 'voxels'. Plugin 'gone' did not load: it is broken."),
        (3, "geometry: mlp", "geometry: geometry 'mlp' is offered by 2 plugins; write one of: other/mlp, toys/mlp"),
        (3, "geometry: [grid]", "geometry: expected a geometry ({type: NAME, …}), found a list."),
        (3, "geometry: {type: {a: 1}}", "geometry: expected a geometry ({type: NAME, …}), found a block of keys"),
        (3, "geometry: null", "geometry: expected a geometry ({type: NAME, …}), found null. Known: grid, mlp."),
        (3, "geometry: {type: grid, levls: 3}", "geometry.levls: unknown key. Did you mean 'levels'?"),
        (3, "geometry: {type: grid, levels: 99}", "geometry.levels: expected at most 32, found 99"),
        (3, "geometry: {type: grid, growth: 1}", "geometry.growth: expected more than 1, found 1"),
        (3, "geometry: {type: grid, growth: fast}", "geometry.growth: expected a number, found 'fast'"),
        (3, "geometry: {type: grid, smooth: yes}", "geometry.smooth: expected true or false, found 'yes'; write true"),
        (3, "geometry: {type: grid, smooth: off}", "geometry.smooth: expected true or false, found 'off'; write false"),
        (3, "geometry: {type: grid, smooth: 1}", "geometry.smooth: expected true or false, found 1"),
        (3, "geometry: {type: grid, reach: far}", "geometry.reach: expected a number or auto, found 'far'"),
        (3, "geometry: {type: toys/mlp, near: 5}", "geometry: near (5) must be less than far (4)"),
        (5, "guidance: [{prior: tiny}]", "guidance.0.prior.model: a text is required and was not given (A public model's name)"),
        (5, "guidance: [{score: sds}]", "guidance.0.prior: a prior is required and was not given (What knows what things"),
        (5, "guidance: {prior: tiny}", "guidance: expected a list (each a block of options), found a block of keys"),
        (5, "guidance: [tiny]", "guidance.0: expected a block of options (prior, score, weight), found 'tiny'"),
        (
            5,
            "guidance: [{prior: {type: tiny, model: x, backup: {type: tiny}}}]",
            "guidance.0.prior.backup.model: a text is required and was not given",
        ),
        (7, "losses: {sparsty: 1}", "losses: no loss named 'sparsty'. Did you mean 'sparsity'?"),
        (7, "losses: {sparsity: big}", "losses.sparsity: a schedule is a number, {from: a, to: b"),
        (7, "losses: [sparsity]", "losses: expected a block of 'name: value' lines, found a list"),
        (1, "task: lft", "task: no task named 'lft'. Did you mean 'lift'?"),
        (1, "task: grid", "task: no task named 'grid'. 'grid' is a geometry."),
        (1, "task: {type: lift}", "task: the name of a task is required; its options stand at the top level. Known:"),
        (1, "name: x", "task: the name of a task is required. Known: fit, lift."),
    ],
)
def test_one_mistake(problems: Problems, line: int, written: str, message: str) -> None:
    lines = GOOD.splitlines()
    lines[line - 1 : line + (1 if line == 5 else 0)] = [written]
    found = problems("\n".join(lines))
    at = line + written.count("\n")
    if written.startswith("?"):
        at = line
    assert len(found) == 1, found
    assert found[0].startswith(f"job.yaml:{at}: {message}"), found[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo", "not of the form key=value (prompt=a red chair, guidance.0.weight=2)"),
        ("=3", "not of the form key=value"),
        ("a..b=3", "not of the form key=value"),
        ("steps=ten", "steps: expected a whole number, found 'ten'"),
        ("steps=[1", "steps: expected a whole number; not valid YAML:"),
        ("steps=", "steps: expected a whole number, found nothing"),
        ("optimizer={lr: 1, lr: 2}", "optimizer: expected a block of options; 'lr' is written twice"),
        ("geometry.levels=99", "geometry.levels: expected at most 32, found 99"),
        ("geometry.levls=9", "geometry.levls: unknown key. Did you mean 'levels'?"),
        ("guidance.0.wait=2", "guidance.0.wait: unknown key. Did you mean 'weight'?"),
        ("guidance.1.weight=2", "guidance has 1 item, the first is guidance.0; there is no '1' in it"),
        ("guidance.first.weight=2", "guidance has 1 item, the first is guidance.0; there is no 'first' in it"),
        ("listeners.0.type=note", "listeners.0: unknown"),
        ("extends=other", "a file names what it extends; it cannot be overridden"),
        ("steps.big=1", "steps: expected a whole number, found a block of keys"),
    ],
)
def test_overrides(problems: Problems, override: str, message: str) -> None:
    found = problems(GOOD, override)
    if override.startswith("listeners"):
        message = "listeners: expected a list (each a listener), found a block of keys"
    assert len(found) == 1, found
    assert found[0].startswith(f"{override} on the command line: {message}"), found[0]


def test_everything_is_reported_at_once(problems: Problems) -> None:
    text = GOOD.replace("levels: 8", "levels: 99, levls: 3").replace("sparsity", "sparsty") + "seed: x\nstps: 4\n"
    found = problems(text, "device=gpu", "nonsense", "guidance.0.weight=heavy")
    assert len(found) == 8
    for part in ("nonsense", "device=gpu", "yaml:8: seed", "stps", "geometry.levels", "levls", "weight=heavy", "sparsty"):
        assert sum(part in problem for problem in found) == 1, part


def test_the_error_lists_one_per_line(load: Callable[..., Job]) -> None:
    with pytest.raises(UserError) as caught:
        load(GOOD + "seed: x\nstps: 4\n")
    assert str(caught.value) == (
        "job.yaml:8: seed: expected a whole number, found 'x'\njob.yaml:9: stps: unknown key. Did you mean 'steps'?"
    )


def test_missing_required_values(problems: Problems) -> None:
    assert problems("task: lift\nprompt: x\n") == [
        "job.yaml:1: geometry: a geometry is required and was not given (The representation)"
    ]
    assert problems("\nname: x\ntask: fit\n") == ["job.yaml:2: rounds: a whole number is required and was not given"]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("task: lift\nprompt: a cat: sitting\n", "job.yaml:2: not valid YAML: mapping values are not allowed here"),
        ("task: lift\nlosses: {a: 1\nsteps: 3\n", "job.yaml:3: not valid YAML: "),
        ("task: lift\n\tsteps: 3\n", "job.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("task: lift\nprompt: 'a cat\n", "job.yaml:3: not valid YAML: found unexpected end of stream"),
        ("task: lift\nprompt: *cat\n", "job.yaml:2: not valid YAML: found undefined alias 'cat'"),
        ("a: 1\n---\nb: 2\n", "job.yaml:2: not valid YAML: but found another document"),
        ("prompt: \x07\n", "job.yaml:1: not valid YAML: "),
        ("- task\n", "job.yaml:1: a job is a list of 'key: value' lines, found a list"),
        ("just words\n", "job.yaml:1: a job is a list of 'key: value' lines, found 'just words'"),
    ],
)
def test_unreadable_yaml_is_one_sentence(problems: Problems, text: str, start: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(start)
    assert "\n" not in found[0]


def test_the_cure_for_a_colon_is_named(problems: Problems) -> None:
    assert problems("prompt: a cat: sitting\n")[0].endswith("a text that holds ': ' needs quotes")


def test_not_text(folder: Path, registry: Registry) -> None:
    (folder / "job.yaml").write_bytes(b"task: \xff\xfe\n")
    with pytest.raises(ConfigError, match="job.yaml: cannot be read: it is not UTF-8 text"):
        load_job("job.yaml", (), registry)


def test_missing_file(folder: Path, registry: Registry) -> None:
    (folder / "chair.yaml").write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_job("chiar.yaml", (), registry)
    assert caught.value.problems == ["chiar.yaml: no such file, and no preset of that name. Did you mean 'chair'?"]


def test_missing_file_names_the_nearest_preset(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    presets = folder / "presets"
    presets.mkdir()
    (presets / "text-to-3d.yaml").write_text(GOOD)
    monkeypatch.setattr("core.config.sources.PRESETS", presets)
    with pytest.raises(ConfigError, match="Did you mean 'text-to-3d'"):
        load_job("text-to-3b", (), registry)
    assert load_job("text-to-3d", (), registry).config.name == "text-to-3d"


def test_an_extra_that_is_not_installed(registry: Registry) -> None:
    from core.config.values import FAILED, Checker

    checker = Checker(registry)
    assert checker.find("metric", "broken", "job.yaml:3", "metrics.0") is FAILED
    assert checker.problems[0].startswith("job.yaml:3: metrics.0: metric 'broken' (plugin toys) could not be imported")
    assert checker.problems[0].endswith('Install it with: pip install "maquette[diffusion]"')


def test_a_disabled_plugin(problems: Problems) -> None:
    found = problems(GOOD.replace("type: grid, levels: 8", "type: other/mlp") + "plugins: {disable: [other]}\n")
    assert found == [
        "job.yaml:3: geometry: geometry 'other/mlp' is of plugin 'other', which this job disables"
    ]


def test_a_task_may_not_take_the_jobs_own_names(registry: Registry, problems: Problems) -> None:
    from core.registry import PluginInfo, Registrar

    bad = Registrar("bad")
    bad.add("task", "grabby", f"{__name__}:Grabby", "takes a name")
    registry.adopt(PluginInfo("bad", "folder"), bad.entries)
    assert problems("task: grabby\n") == [
        "job.yaml:1: task: task 'grabby' has an option 'seed', a name that the job itself uses"
    ]


class Grabby:
    from core.config.base import Config as _Base

    class Config(_Base):
        seed: int = 0


def test_a_plugin_may_refuse(registry: Registry, load: Callable[..., Job]) -> None:
    from core.hookspecs import hookimpl

    class Strict:
        @hookimpl
        def on_config(self, config: Job) -> None:
            if config.config.seed == 13:
                raise UserError("13 brings bad luck")

    registry.manager.register(Strict())
    load(GOOD)
    with pytest.raises(ConfigError, match=r"job\.yaml: 13 brings bad luck"):
        load(GOOD, "seed=13")
