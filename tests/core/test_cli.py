"""The command line: verbs, exit codes, one-line errors, and a whole run with plugins that were just written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import core
from core import discovery
from core.cli import main
from core.cli.entry import split_switches
from core.cli.environment import physical_cores, prepare
from core.scaffold import write_plugin

ROOT = Path(core.__file__).resolve().parent.parent
JOB = """
task: lift
name: tiny
steps: 4
checkpoint_every: 2
preview_every: 0
geometry: {type: t-geometry, radius: 0.6}
material: t-material
background: t-background
renderer: {type: volume, samples: 16, grid: 16}
data: {type: t-data, views: 2, size: 12}
prompts: t-prompt
guidance:
  - {prior: t-prior, score: {type: t-score, scale: 2}}
losses: {t-loss: 0.1}
listeners: [{type: t-listener, every: 1}]
export: [t-exporter]
"""


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    yield
    discovery.configure()


@pytest.fixture(scope="module")
def tiny_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One plugin of every kind that the scaffold knows, ``t-KIND``."""
    from core.scaffold import TEMPLATED_KINDS

    folder = tmp_path_factory.mktemp("plugins")
    for kind in TEMPLATED_KINDS:
        write_plugin(f"t-{kind}", kind, folder)
    return folder


@pytest.fixture
def job(tmp_path: Path, tiny_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MAQUETTE_PLUGIN_PATH", str(tiny_plugins))
    (tmp_path / "tiny.yaml").write_text(JOB)
    return str(tmp_path / "tiny.yaml")


def launch(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, *(["-X", "importtime"] if "--help" in words or "plugins" in words else []), *words)
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environ})


@pytest.mark.parametrize("verb", [["--help"], ["plugins"], ["plugins", "--matrix"], ["text", "--help"]])
def test_listing_verbs_do_not_import_torch(verb: list[str]) -> None:
    done = launch("launch.py", *verb)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "core.cli.app" in imported
    assert not {name.partition(".")[0] for name in imported} & {"torch", "numba", "diffusers", "transformers"}


def test_threads_are_set_before_torch_unless_the_user_did() -> None:
    given = {"OMP_NUM_THREADS": "3"}
    prepare(given)
    cores = str(physical_cores())
    assert given == {
        "OMP_NUM_THREADS": "3",
        "NUMBA_NUM_THREADS": cores,
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


def test_switches_stand_anywhere_but_not_after_a_double_dash() -> None:
    switches, rest = split_switches(["text", "a -p thing", "-p", "no:nerf", "--debug", "--", "--no-plugins"])
    assert (switches.debug, switches.external, switches.blocked) == (True, True, ("nerf",))
    assert rest == ["text", "a -p thing", "--", "--no-plugins"]
    assert split_switches(["--no-plugins", "plugins"])[0].external is False


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "new-plugin" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"maquette {core.__version__}\n"


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["txt"], "No such command 'txt'"),
        (["text"], "Missing argument"),
        (["text", " "], "the prompt is empty"),
        (["text", "a", "red", "mug"], "'red' is not of the form key=value. A prompt of several words needs quotes"),
        (["text", "a mug", "--config", "text-to-3"], "Did you mean 'text-to-3d'?"),
        (["text", "a mug", "stepz=3"], "stepz"),
        (["run", "no-such-file.yaml"], "no such file"),
        (["resume", "no-such-run"], "no-such-run does not exist"),
        (["export", "no-such-run"], "no-such-run"),
        (["plugins", "--kind", "geometri"], "Did you mean 'geometry'?"),
        (["describe", "hash-gird"], "Did you mean 'hash-grid'?"),
        (["describe", "hash-grid", "--kind", "material"], "'hash-grid' is a geometry"),
        (["check", "hash-gird"], "Did you mean 'hash-grid'?"),
        (["bench", "kernel"], "Did you mean 'kernels'?"),
        (["new-plugin", "x", "--kind", "geometri"], "Did you mean 'geometry'?"),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(
    words: list[str], fragment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert fragment in told
    assert all(line.startswith("error: ") for line in told.splitlines())


def test_every_problem_of_a_job_has_its_line(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", job, "steps=none", "geometry.raduis=1", "--dry-run"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert len(lines) >= 3  # the two overrides and the prompt that is not there
    assert any("steps" in line for line in lines) and any("'radius'" in line for line in lines)


def test_a_fault_of_the_program_hides_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a\nwire is loose")

    monkeypatch.setattr("core.cli.catalogue.get_registry", fail)
    assert main(["plugins"]) == 1
    told = capsys.readouterr().err
    assert told == "error: RuntimeError: a wire is loose. Run again with --debug to see where.\n"
    assert main(["plugins", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("MAQUETTE_DEBUG", "1")
    assert main(["plugins"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interruption_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("core.cli.catalogue.get_registry", interrupt)
    assert main(["plugins"]) == 130


def test_a_broken_plugin_stops_no_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "plugin.py").write_text("import no_such_module_xyz\n")
    monkeypatch.setenv("MAQUETTE_PLUGIN_PATH", str(tmp_path))
    assert main(["plugins"]) == 0
    assert "No module named 'no_such_module_xyz'" in capsys.readouterr().out.splitlines()[-1]
    assert main(["-p", "no:bad", "plugins"]) == 0
    assert "blocked: bad" in capsys.readouterr().out
    assert main(["plugins", "--no-plugins"]) == 0
    assert "bad" not in capsys.readouterr().out


def test_plugins_as_json_names_every_component(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json", "--kind", "loss"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"core"} <= {p["name"] for p in found["plugins"]}
    assert all(c["kind"] == "loss" for c in found["components"])
    assert "core/sparsity" in {c["qualified"] for c in found["components"]}


def test_describe_shows_options_and_an_example(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "t-geometry"]) == 0
    page = capsys.readouterr().out
    assert "radius: a number, more than 0; default 0.5\n      Initial radius in world units." in page
    assert "gives   density, features" in page
    assert "A soft ball whose centre" in page
    assert page.rstrip().endswith(
        "example\n  geometry:\n    type: t-geometry\n    radius: 0.5\n    density: 40.0\n    softness: 0.05\n    channels: 3"
    )


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("score", "guidance:\n    - prior: …\n      score:\n        type: t-score"),
        ("prior", "guidance:\n    - score: sds\n      prior:\n        type: t-prior"),
        ("prompt", "prompts:\n    type: t-prompt"),
        ("exporter", "export:\n    - type: t-exporter\n      resolution: 24"),
        ("listener", "listeners:\n    - type: t-listener"),
        ("loss", "losses:\n    t-loss: 1.0"),
        ("command", "maquette bench t-command"),
    ],
)
def test_examples_stand_where_the_kind_stands(
    kind: str, start: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"bench-t-{kind}" if kind == "command" else f"t-{kind}"
    assert main(["describe", name]) == 0
    assert f"example\n  {start}" in capsys.readouterr().out


def test_describe_takes_plugins_and_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "core"]) == 0
    assert "plugin core" in capsys.readouterr().out
    assert main(["describe", "geometry"]) == 0
    assert capsys.readouterr().out.startswith("geometry: a representation of shape")


def test_doctor_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["maquette"] == core.__version__
    assert {row["kernel"] for row in found["backends"]} >= {"hash_grid", "march", "composite"}
    assert main(["doctor"]) == 0
    assert "backends" in capsys.readouterr().out


def test_commands_are_dispatched_with_their_own_options(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench"]) == 0
    assert "bench t-command" in capsys.readouterr().out
    file = tmp_path / "sub" / "rays.json"
    assert main(["bench", "t-command", "--size", "8", "--repeat", "2", "--json", str(file)]) == 0
    assert "million rays per second" in capsys.readouterr().out
    assert json.loads(file.read_text())["rays_per_second"] > 0
    assert main(["bench", "t-command", "--sise", "8"]) == 2
    assert "--sise" in capsys.readouterr().err


def test_print_config_and_dry_run_start_nothing(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    awkward = "yes: a [mug] steps=3 #1"
    words = ["text", awkward, "geometry.radius=0.7", "--config", job, "--seed", "5"]
    assert main([*words, "--print-config"]) == 0
    import yaml

    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["prompt"], shown["seed"], shown["geometry"]["radius"]) == (awkward, 5, 0.7)
    assert main([*words, "--dry-run"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_fit_refuses_a_lift(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", job, "prompt=a mug", "--dry-run"]) == 2
    assert "its task is 'lift'" in capsys.readouterr().err


def test_a_run_is_made_resumed_and_exported(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["text", "a red ball", "--config", job, "--output", str(out), "--quiet"]) == 0
    (folder,) = out.iterdir()
    assert capsys.readouterr().out == f"finished: {folder}\n"
    assert (folder / "assets" / "a-red-ball.xyz").stat().st_size > 1
    assert len((folder / "t-listener.csv").read_text().splitlines()) == 5
    assert main(["resume", str(folder)]) == 2
    assert "nothing is left to resume" in capsys.readouterr().err
    assert main(["export", str(folder), "--to", "t-exporter", "t-exporter.resolution=8", "threshold=1"]) == 0
    (written,) = capsys.readouterr().out.split()
    assert 0 < len(Path(written).read_text().splitlines()) <= 8**3
    assert main(["export", str(folder), "--to", "t-exporter", "resolutoin=8"]) == 2
    assert "Did you mean 'resolution'?" in capsys.readouterr().err
    assert main(["export", str(folder), "--to", "t-exporter", "resolution=1"]) == 2
    assert "resolution" in capsys.readouterr().err


def test_a_run_stopped_by_a_signal_is_130_and_resumable(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from core.loop import Loop

    take = Loop.take

    def interrupted(self: Loop, index: int) -> object:
        if index == 1:
            signal.raise_signal(signal.SIGINT)
        return take(self, index)

    monkeypatch.setattr(Loop, "take", interrupted)
    assert main(["text", "a red ball", "--config", job, "--output", str(tmp_path / "out"), "--quiet"]) == 130
    monkeypatch.setattr(Loop, "take", take)
    (folder,) = (tmp_path / "out").iterdir()
    assert capsys.readouterr().out == f"stopped: {folder}\n"
    assert main(["resume", str(folder), "--quiet"]) == 0
    assert capsys.readouterr().out == f"finished: {folder}\n"


def test_new_plugin_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "blob", "--kind", "geometry", "--into", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert str(tmp_path / "blob" / "geometry.py") in told
    assert f"MAQUETTE_PLUGIN_PATH={tmp_path}" in told


def test_check_passes_and_fails(
    tiny_plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_plugin("blob", "geometry", tmp_path).folder
    monkeypatch.setenv("MAQUETTE_PLUGIN_PATH", str(tmp_path))
    assert main(["check", "blob"]) == 0
    assert "geometry blob: density has shape [N]" in capsys.readouterr().out
    assert main(["check", "blob", "channels=5", "radius=0"]) == 2
    assert "radius" in capsys.readouterr().err
    assert main(["check", "blob", "channels=5"]) == 0
    capsys.readouterr()
    source = folder / "geometry.py"
    source.write_text(source.read_text().replace("torch.sigmoid(inside", "-torch.sigmoid(inside"))
    for name in [n for n in sys.modules if n.startswith("plugins.blob")]:
        del sys.modules[name]
    assert main(["check", "blob"]) == 2
    assert "error: geometry 'blob/blob': broken: density is finite and not negative" in capsys.readouterr().err
