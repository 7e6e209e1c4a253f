"""Bad input of every sort: one clear sentence per problem, exit code 2, and nothing touched.

Each row of the table is a command line as one would type it, with what the answer must say. Most run in this process;
at the end a few run as programs of their own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import core
from core import discovery
from core.cli import main
from core.scaffold import TEMPLATED_KINDS, write_plugin

ROOT = Path(core.__file__).resolve().parent.parent
JOB = """\
task: lift
name: tiny
steps: 2
checkpoint_every: 1
preview_every: 0
prompt: a red ball
geometry: {type: t-geometry, radius: 0.6}
material: t-material
background: t-background
renderer: {type: volume, samples: 8, grid: 8}
data: {type: t-data, views: 2, size: 8}
prompts: t-prompt
guidance:
  - {prior: t-prior, score: {type: t-score, scale: 2}}
losses: {t-loss: 0.1}
export: [t-exporter]
"""
HEAD = "from core import hookimpl\nAPI = 1\n"
DECLARES = "@hookimpl\ndef register(registry):\n    registry.add('geometry', '{0}', '{1}', 'a thing')\n"
PLUGIN = HEAD + DECLARES
UNIVERSAL = "collections:OrderedDict"


@dataclass(frozen=True)
class Bad:
    """A command line and what the answer to it must hold.

    Attributes:
        words: as typed.  told: fragments of what is said.  lines: how many problems there are.
        files: written before it runs.  environ: set while it runs; ``{here}`` is the working folder.
        before: done in the working folder first.  made: what may be new afterwards.
        builds: whether components are built before the mistake can be seen.
    """

    words: str
    told: tuple[str, ...]
    lines: int = 1
    files: dict[str, str | bytes] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    before: Callable[[], Any] = lambda: None
    made: frozenset[str] = frozenset()
    builds: bool = False


def bad(words: str, *told: str, **more: Any) -> Bad:
    return Bad(words, told, **more)


def damage(name: str, change: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Alters a file of the newest checkpoint of ``run``."""

    def alter() -> None:
        path = Path("run/checkpoints/step-000002") / name
        path.write_bytes(change(path.read_bytes()))

    return alter


def edited(**values: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **values}).encode()


def _picture() -> bytes:
    """A red square on nothing, as a PNG."""
    from io import BytesIO

    from PIL import Image

    image, out = Image.new("RGBA", (32, 32)), BytesIO()
    image.paste((200, 30, 30, 255), (8, 8, 24, 24))
    image.save(out, "PNG")
    return out.getvalue()


PICTURE = _picture()
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")

VERBS = {
    "misspelt-verb": bad("txt 'a mug'", "No such command 'txt'. Did you mean 'text'?", "--help"),
    "misspelt-switch": bad("text 'a mug' --stesp 3", "No such option: --stesp", "text --help"),
    "no-prompt": bad("text", "Missing argument", "text --help"),
    "empty-prompt": bad("text ''", "the prompt is empty", "for example"),
    "no-prompt-file": bad("text @nowhere.txt", "the prompt file nowhere.txt cannot be read: No such file"),
    "empty-prompt-file": bad("text @p.txt", "the prompt file p.txt is empty; write what to make", files={"p.txt": "\n \n"}),
    "binary-prompt-file": bad("text @p.txt", "the prompt file p.txt holds no text", files={"p.txt": "a\0b"}),
    "blank-prompt": bad("text ' \t '", "the prompt is empty"),
    "prompt-without-quotes": bad("text a red mug", "'red' is not of the form key=value", "needs quotes"),
    "blank-prompt-in-a-job": bad("run tiny.yaml 'prompt=  '", "prompt", "found only spaces"),
    "a-job-without-prompt": bad("run text-to-3d", "text-to-3d.yaml", "prompt: a text is required"),
    "no-picture-there": bad("image nowhere.png", "there is no picture nowhere.png"),
    "no-picture-named": bad("image", "Missing argument", "image --help"),
    "a-text-as-picture": bad("image note.png", "note.png", files={"note.png": "just words"}),
    "an-empty-picture": bad("image empty.png", "empty.png", files={"empty.png": b""}),
    "a-picture-with-a-fit": bad("image p.png --config embedded-unet", "takes no picture", files={"p.png": b"x"}),
    "mask-missing": bad("image p.png --mask nowhere.png", "nowhere.png", files={"p.png": PICTURE}),
    "elevation-impossible": bad("image p.png --elevation 120", "picture.elevation", files={"p.png": PICTURE}),
    "views-of-nothing": bad("views nowhere.png", "there is no picture nowhere.png"),
    "views-by-a-reader": bad("views p.png --prior embedded", "looks at no picture", files={"p.png": PICTURE}),
    "views-too-high": bad("views p.png --elevation 80", "stands between -90 and 90", files={"p.png": PICTURE}),
    "picture-in-a-text-job": bad("run tiny.yaml image=nowhere.png", "nowhere.png"),
    "seed-is-a-word": bad("text 'a mug' --seed banana", "'--seed'", "valid integer"),
    "seed-is-negative": bad("text 'a mug' --seed -3", "seed: expected at least 0, found -3"),
    "fit-a-lift": bad("fit tiny.yaml", "tiny.yaml fits nothing: its task is 'lift'", "text "),
    "fit-the-preset": bad("fit text-to-3d", "text-to-3d fits nothing: its task is 'lift'"),
    "text-with-a-fit": bad("text 'a mug' --config embedded-unet", "embedded-unet takes no prompt", "fit embedded-unet"),
    "describe-unknown": bad("describe hash-gird", "'hash-gird'. Did you mean 'hash-grid'?"),
    "describe-another-kind": bad("describe volume --kind geometry", "no geometry named 'volume'", "is a renderer"),
    "check-unknown": bad("check hash-gird", "no component 'hash-gird'. Did you mean 'hash-grid'?"),
    "check-with-bad-options": bad("check hash-grid levels=99", "levels: expected at most 32, found 99"),
    "check-no-option": bad("check hash-grid levels", "'levels' is not of the form key=value"),
    "bench-unknown": bad("bench kernel", "nothing to bench named 'kernel'. Did you mean 'kernels'?"),
    "eval-unknown": bad("eval txt", "nothing to eval named 'txt'. Did you mean 'text'?"),
    "eval-prompts-missing": bad("eval text --prompts nowhere.yaml", "nowhere.yaml cannot be read: No such file"),
    "bench-kernel-unknown": bad("bench kernels --only hash_gird", "no kernel 'hash_gird'. Did you mean 'hash_grid'?"),
    "json-below-a-file": bad("bench t-command --json file.txt/a.json", "file.txt/a.json cannot be written", "folder"),
    "json-is-a-folder": bad("bench t-command --json folder", "folder cannot be written: it is a folder"),
    "kind-unknown": bad("plugins --kind geometri", "'geometri' is not a kind", "Did you mean 'geometry'?"),
    "block-without-no": bad("plugins -p nerf", "-p nerf", "-p no:nerf"),
    "block-misspelt": bad("plugins -p no:nrf", "no plugin 'nrf'. Did you mean 'nerf'?"),
    "block-the-core": bad("plugins -p no:core", "nothing works without the plugin 'core'"),
    "plugin-name-bad": bad("new-plugin 'My Plugin'", "'My Plugin' cannot be a plugin's name", "lower-case"),
    "plugin-name-reserved": bad("new-plugin class", "'class' cannot be a plugin's name: it is a word of Python"),
    "plugin-name-taken": bad("new-plugin nerf", "there is a plugin 'nerf' already", "would not be loaded"),
    "plugin-kind-unknown": bad("new-plugin blob --kind geometri", "Did you mean 'geometry'?"),
    "plugin-kind-untaught": bad("new-plugin blob --kind renderer", "'renderer' has no template. Known:", "geometry"),
    "plugin-folder-exists": bad("new-plugin blob", "blob already exists", files={"blob/note": "mine"}),
    "plugin-into-a-file": bad("new-plugin blob --into file.txt", "file.txt", "Not a directory"),
}

JOBS = {
    "misspelt-preset": bad("text 'a mug' --config text-to-3b", "text-to-3b: no such file", "Did you mean 'text-to-3d'?"),
    "misspelt-file": bad("run tinny.yaml", "tinny.yaml: no such file", "Did you mean 'tiny'?"),
    "no-file": bad("run ''", "the name of the job file is empty. Known:"),
    "folder-for-a-file": bad("run folder", "folder: is a folder, not a job file"),
    "run-for-a-file": bad("run run", "run: is a folder", "its job is run/config.yaml"),
    "binary-file": bad("run p.yaml", "p.yaml: cannot be read: it is not UTF-8 text", files={"p.yaml": b"\x89PNG\xff"}),
    "syntax": bad("run s.yaml", "s.yaml:3: not valid YAML", "'}'", files={"s.yaml": "task: lift\nlosses: {a: 1\nb: 2\n"}),
    "tab": bad("run s.yaml", "s.yaml:2: not valid YAML", "indent with spaces", files={"s.yaml": "task: lift\n\tsteps: 3\n"}),
    "colon-in-a-prompt": bad("run s.yaml", "s.yaml:1", "needs quotes", files={"s.yaml": "prompt: a cat: sitting\n"}),
    "duplicate-key": bad(
        "run s.yaml", "s.yaml:3: 'steps' is written twice (first on line 2)",
        files={"s.yaml": "extends: tiny\nsteps: 3\nsteps: 4\n"},
    ),
    "extends-circle": bad(
        "run a.yaml", "b.yaml:1", "in a circle: a.yaml -> b.yaml -> a.yaml",
        files={"a.yaml": "extends: b\n", "b.yaml": "extends: a\n"},
    ),
    "extends-nothing": bad("run a.yaml", "a.yaml:1", "'tinny'. Did you mean 'tiny'?", files={"a.yaml": "extends: tinny\n"}),
    "empty-file": bad("run a.yaml", "a.yaml:1: task: the name of a task is required. Known:", files={"a.yaml": ""}),
    "no-mapping": bad("run a.yaml", "a.yaml:1", "'key: value' lines, found a list", files={"a.yaml": "- lift\n"}),
    "unknown-key": bad("text 'a mug' stpes=3", "stpes=3 on the command line", "Did you mean 'steps'?"),
    "unknown-path": bad("text 'a mug' geometry.lvels=3", "geometry.lvels: unknown key. Did you mean 'levels'?"),
    "unknown-item": bad("run tiny.yaml guidance.3.weight=2", "guidance has 1 item", "there is no '3'"),
    "unknown-loss": bad("text 'a mug' losses.sparsty=1", "no loss named 'sparsty'. Did you mean 'sparsity'?"),
    "unknown-task": bad("run tiny.yaml task=lfit", "no task named 'lfit'. Did you mean 'lift'?"),
    "unknown-exporter": bad("run tiny.yaml export=[glbb]", "export.0: no exporter named 'glbb'. Did you mean 'glb'?"),
    "unknown-listener": bad("run tiny.yaml listeners=[nope]", "listeners.0: no listener named 'nope'. Known: t-listener"),
    "unknown-option-value": bad("run tiny.yaml device=gpu", "device: expected one of auto, cpu, cuda, mps; found 'gpu'"),
    "wrong-type": bad("run tiny.yaml steps=ten", "steps: expected a whole number, found 'ten'"),
    "negative-steps": bad("run tiny.yaml steps=-5", "steps: expected at least 1, found -5"),
    "out-of-range": bad("run tiny.yaml optimizer.lr=0", "optimizer.lr: expected more than 0, found 0"),
    "infinite": bad("run tiny.yaml optimizer.lr=.inf", "optimizer.lr: expected a finite number"),
    "noise-out-of-range": bad("run text-to-3d-sds prompt=mug guidance.0.score.low=2", "score.low: expected noise levels in [0, 1], found 2"),
    "grid-too-coarse": bad("text 'a mug' --config dmtet geometry.resolution=2", "geometry.resolution: expected at least 4, found 2"),
    "no-gaussians": bad("text 'a mug' --config splats geometry.count=0", "geometry.count: expected at least 1, found 0"),
    "one-value-a-side": bad("text 'a mug' --config triplane geometry.resolution=1", "resolution: expected at least 2, found 1"),
    "surface-without-width": bad("text 'a mug' --config sdf geometry.width=0", "geometry.width: expected widths above 0, found 0"),
    "level-below-zero": bad(
        "text 'a mug' 'export=[{type: glb, level: -1}]'", "export.0.level: expected more than 0, found -1"
    ),
    "mesh-missing": bad(
        "text 'a mug' --config texture-my-mesh geometry.path=gone.obj --output out", "geometry.path: there is no file gone.obj",
        builds=True, made=frozenset({"out"}),
    ),
    "mesh-without-faces": bad(
        "text 'a mug' --config texture-my-mesh geometry.path=p.obj --output out", "p.obj has no faces, so there is no surface",
        builds=True, made=frozenset({"out"}), files={"p.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\n"},
    ),
    "pictures-too-small": bad("text 'a mug' data.cameras.size=0", "data.cameras.size: expected at least 8 pixels, found 0"),
    "no-equals-sign": bad("run tiny.yaml steps", "'steps' is not of the form key=value"),
    "another-kind": bad("text 'a mug' geometry=volume", "no geometry named 'volume'. 'volume' is a renderer"),
    "text-where-a-list": bad("run tiny.yaml export=glb", "export: expected a list (each an exporter), found 'glb'"),
    "broken-override": bad("run tiny.yaml 'geometry={type: t-geometry'", "expected a geometry; not valid YAML"),
    "no-guidance": bad("run tiny.yaml guidance=[] losses.t-loss=null", "nothing leads this lift"),
    "no-normals": bad(
        "text 'a mug' losses.orientation=0.1", "loss 'orientation' needs normal; nothing here gives it",
        "renderer nerf/volume by its options",
    ),
    "schedule-key": bad("run tiny.yaml 'losses.t-loss={form: 1, to: 2}'", "t-loss.form: unknown key", "Did you mean 'from'?"),
    "schedule-word": bad("run tiny.yaml losses.t-loss=heavy", "a schedule is a number", "80%", "not 'heavy'"),
    "schedule-backwards": bad(
        "run tiny.yaml 'losses.t-loss={from: 0, to: 1, start: 80%, end: 20%}'", "losses.t-loss", "must start before it ends"
    ),
    "everything-at-once": bad(
        "run tiny.yaml seed=x stpes=3 losses.sparsty=1", "seed: expected a whole number", "'steps'", "'sparsity'", lines=3
    ),
    "stage-twice": bad(
        "run a.yaml", "a.yaml:2: stages.1.name: another stage is called 'a' already",
        files={"a.yaml": "extends: tiny\nstages: [{name: a}, {name: a, steps: 3}]\n"},
    ),
    "plugin-required": bad("run tiny.yaml plugins.require=[photogrammetry]", "there is no plugin 'photogrammetry'. Known:"),
    "plugin-switched-off": bad(
        "text 'a mug' -p no:nerf", "no geometry named 'hash-grid'", "no renderer named 'volume'", "'nerf'", lines=2
    ),
    "no-model-named": bad(
        "run text-to-3d-sds prompt=mug 'guidance=[{prior: stable-diffusion, score: sds}]'", "prior.model: a text is required"
    ),
    "kernel-unknown": bad(
        "run tiny.yaml", "MAQUETTE_KERNELS: there is no kernel 'hash_gird'", "'hash_grid'",
        environ={"MAQUETTE_KERNELS": "hash_gird=numba"},
    ),
    "backend-unknown": bad(
        "run tiny.yaml", "'hash_grid' has no backend 'nmba'. Did you mean 'numba'?",
        environ={"MAQUETTE_KERNELS": "hash_grid=nmba"},
    ),
    "too-many-processes": bad("run tiny.yaml device=cpu devices=9999", "devices: 9999 on the CPU"),
    "output-is-a-file": bad("run tiny.yaml --output file.txt", "output folder file.txt: it is a file"),
    "output-below-a-file": bad("run tiny.yaml output=file.txt/runs", "output folder file.txt/runs: Not a directory"),
    "no-family": bad(
        "text 'a mug' data.prior.family=nowhere --output out", "nowhere/unet does not exist", "fit embedded-unet",
        builds=True, made=frozenset({"out"}),
    ),
    "no-pipeline-folder": bad(
        "run tiny.yaml 'guidance=[{prior: {type: stable-diffusion, model: folder}, score: t-score}]' --output out",
        "folder is no diffusers pipeline folder: it lacks vae, text_encoder", builds=True, made=frozenset({"out"}),
    ),
    "no-model-folder": bad(
        "run tiny.yaml 'guidance=[{prior: {type: stable-diffusion, model: ./sd-1}, score: t-score}]' --output out",
        "there is no folder ./sd-1", "hub", builds=True, made=frozenset({"out"}),
    ),
}  # fmt: skip

STATE, MODEL = "step-000002/state.json", "step-000002/model.safetensors"
USABLE = "The newest usable checkpoint is run/checkpoints/step-000001"
RUNS = {
    "resume-nothing": bad("resume nowhere", "nowhere does not exist"),
    "resume-a-file": bad("resume tiny.yaml", "tiny.yaml is a file, not a run's folder"),
    "resume-a-folder": bad("resume folder", "folder holds no config.yaml, so it is not a run's folder"),
    "resume-option-to-nothing": bad("run tiny.yaml --resume nowhere", "nowhere does not exist"),
    "resume-finished": bad("resume run", "run is finished, all 2 steps of it"),
    "resume-unknown-key": bad("resume run stpes=4", "Did you mean 'steps'?"),
    "resume-shorter": bad("resume run steps=1", "has taken 2 steps of this stage, 'steps' is now 1"),
    "resume-another-geometry": bad(
        "resume run steps=4 geometry.radius=0.7", "'geometry.radius' was 0.6, is now 0.7. Start a new run"
    ),
    "resume-no-such-step": bad("resume run/checkpoints/step-000009 steps=4", "state.json is missing", "step-000002"),
    "weights-cut-short": bad(
        "resume run steps=4", MODEL, "is damaged", USABLE, before=damage("model.safetensors", lambda data: data[:50])
    ),
    "weights-altered": bad(
        "resume run steps=4", MODEL, "is damaged", USABLE, before=damage("model.safetensors", lambda d: d[:-1] + bytes([d[-1] ^ 1]))
    ),
    "state-cut-short": bad(
        "resume run steps=4", STATE, "cannot be read", USABLE, before=damage("state.json", lambda d: d[:9])
    ),
    "state-of-the-future": bad(
        "resume run steps=4", STATE, "checkpoint format 99; this version reads format 1", USABLE,
        before=damage("state.json", edited(format=99)),
    ),
    "state-makes-no-sense": bad(
        "resume run steps=4", STATE, "is incomplete", "whole numbers", before=damage("state.json", edited(step="two"))
    ),
    "no-checkpoint": bad(
        "resume run steps=4", "run has no checkpoint to resume from", before=lambda: shutil.rmtree("run/checkpoints")
    ),
    "job-of-a-run-broken": bad(
        "resume run steps=4", "run/config.yaml:1: not valid YAML", before=lambda: Path("run/config.yaml").write_text("{")
    ),
    "plugins-of-a-run-gone": bad(
        "resume run steps=4", "made with plugins that are not loaded now: ", "t-geometry", "MAQUETTE_PLUGIN_PATH",
        environ={"MAQUETTE_PLUGIN_PATH": ""},
    ),
    "plugins-of-a-run-garbled": bad(
        "resume run steps=4", "run/plugins.json is no list of plugins",
        before=lambda: Path("run/plugins.json").write_text("[3]"),
    ),
    "export-nothing": bad("export nowhere", "nowhere does not exist"),
    "export-a-folder": bad("export folder", "folder holds no config.yaml"),
    "export-unknown-format": bad("export run --to glbb", "no exporter named 'glbb'. Did you mean 'glb'?"),
    "export-no-format": bad("export run --to ''", "--to names no exporter", "describe exporter"),
    "export-another-kind": bad("export run --to hash-grid", "no exporter named 'hash-grid'", "is a geometry"),
    "export-unknown-option": bad("export run --to t-exporter resolutoin=8", "Did you mean 'resolution'?"),
    "export-wrong-type": bad("export run --to t-exporter resolution=high", "expected a whole number, found 'high'"),
    "export-without-weights": bad(
        "export run --to t-exporter", "run has no checkpoint", before=lambda: shutil.rmtree("run/checkpoints")
    ),
    "export-into-a-file": bad(
        "export run --to t-exporter", "run/assets is in the way", builds=True,
        before=lambda: (shutil.rmtree("run/assets"), Path("run/assets").write_text("mine")),
    ),
}  # fmt: skip

HERE = {"MAQUETTE_PLUGIN_PATH": "{here}/more"}
PLUGINS = {
    "ambiguous": bad(
        "text 'a mug'", "geometry 'hash-grid' is offered by 2 plugins; write one of: nerf/hash-grid, other/hash-grid",
        files={"more/other/plugin.py": PLUGIN.format("hash-grid", UNIVERSAL)}, environ=HERE,
    ),
    "failed-plugin": bad(
        "text 'a mug' geometry=blob", "no geometry named 'blob'", "Plugin 'lame' may provide it but did not load", "SyntaxError",
        files={"more/lame/plugin.py": "def (:\n"}, environ=HERE,
    ),
    "target-missing": bad(
        "text 'a mug' geometry=blob", "geometry 'blob' (plugin lame) could not be imported", "plugins.lame.blob",
        files={"more/lame/plugin.py": PLUGIN.format("blob", "plugins.lame.blob:Blob")}, environ=HERE,
    ),
    "target-misspelt": bad(
        "describe blob", "collections has no 'OrderedDct'. Did you mean 'OrderedDict'?",
        files={"more/lame/plugin.py": PLUGIN.format("blob", "collections:OrderedDct")}, environ=HERE,
    ),
    "target-is-no-geometry": bad(
        "check blob", "broken: the target is a subclass of core.Geometry",
        files={"more/lame/plugin.py": PLUGIN.format("blob", UNIVERSAL)}, environ=HERE,
    ),
}  # fmt: skip
TABLE = {**VERBS, **JOBS, **RUNS, **PLUGINS}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plugins ``t-KIND``, and a folder with a job, a finished run, a file and an empty folder."""
    base = tmp_path_factory.mktemp("stock")
    for kind in TEMPLATED_KINDS:
        write_plugin(f"t-{kind}", kind, base / "plugins")
    place = base / "place"
    (place / "folder").mkdir(parents=True)
    (place / "tiny.yaml").write_text(JOB)
    (place / "file.txt").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_PLUGIN_PATH", str(base / "plugins"))
        patch.setenv("MAQUETTE_KERNELS", "reference")  # nothing to compile
        assert main(["run", str(place / "tiny.yaml"), "--quiet", "--output", str(base / "runs")]) == 0
    (run,) = (base / "runs").iterdir()
    run.rename(place / "run")
    return base


@pytest.fixture
def place(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of one's own with what ``stock`` holds; no setting leaks in or out."""
    shutil.copytree(stock / "place", tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for name in ("STRICT", "DEBUG", "PLUGINS", "KERNELS"):
        monkeypatch.delenv(f"MAQUETTE_{name}", raising=False)
    monkeypatch.setenv("MAQUETTE_PLUGIN_PATH", str(stock / "plugins"))
    yield tmp_path / "here"
    discovery.configure()


def prepare(case: Bad, place: Path) -> dict[str, str]:
    """Writes the files of a case; returns its environment."""
    for name, content in case.files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    case.before()
    return {name: value.format(here=place) for name, value in case.environ.items()}


def contents(place: Path) -> dict[str, bytes]:
    """Every file and folder but Python's own caches."""
    found = (p for p in place.rglob("*") if "__pycache__" not in p.parts)
    return {p.relative_to(place).as_posix(): p.read_bytes() if p.is_file() else b"folder" for p in found}


def check_told(case: Bad, code: int, told: str) -> None:
    lines = told.splitlines()
    assert code == 2, told
    assert "Traceback" not in told and "--debug" not in told
    assert len(lines) == case.lines and all(line.startswith("error: ") for line in lines), told
    assert all(len(line) < 420 for line in lines), told
    for fragment in case.told:
        assert fragment in told, f"{fragment!r} is not in {told!r}"


def test_the_table_is_as_long_as_promised() -> None:
    assert len(TABLE) == sum(map(len, (VERBS, JOBS, RUNS, PLUGINS))) >= 40


@pytest.mark.parametrize("name", TABLE)
def test_bad_input(name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = TABLE[name]
    for variable, value in prepare(case, place).items():
        monkeypatch.setenv(variable, value)
    if not case.builds:
        for user in ("core.stages.build", "core.testing.check.Checked.build"):
            monkeypatch.setattr(user, lambda *_, **__: pytest.fail("something was built before the mistake was told"))
    before = contents(place)
    code = main(shlex.split(case.words))
    said = capsys.readouterr()
    check_told(case, code, said.err)
    assert said.out == ""
    after = contents(place)
    assert after == before | dict.fromkeys(case.made, b"folder")


@NO_CUDA
def test_a_device_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(place)
    code = main(["run", "tiny.yaml", "device=cuda", "--output", "out"])
    check_told(bad("", "device: cuda is not available here", "device=auto"), code, capsys.readouterr().err)
    assert contents(place) == before


def test_a_backend_that_is_not_installed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("core.kernels.dispatch._installed", lambda module: module != "tinycudann")
    monkeypatch.setenv("MAQUETTE_KERNELS", "tinycudann")
    assert main(["run", "tiny.yaml", "--output", "out"]) == 2
    told = capsys.readouterr().err
    assert "'tinycudann' of the kernel 'hash_grid' cannot run here: tinycudann not installed. To add it: pip" in told
    assert not (place / "out").exists()
    assert main(["doctor"]) == 0
    assert "(Backend 'tinycudann'" in capsys.readouterr().out


BROKEN = {
    "syntax": ("def (:\n", "SyntaxError: invalid syntax (plugin.py, line 1)"),
    "import": ("import no_such_module_xyz\n", "No module named 'no_such_module_xyz'"),
    "old-api": (PLUGIN.replace("API = 1", "API = 0"), "it was written for plugin API 0, this is API 1"),
    "no-api": (PLUGIN.replace("API = 1", ""), "it declares no API version; write API = 1"),
    "misspelt-hook": (
        PLUGIN + "@hookimpl\ndef on_stpe(run):\n    pass\n",
        "unknown hook 'on_stpe'. Did you mean 'on_step'?",
    ),
    "unmarked-hook": (PLUGIN + "def on_step(run):\n    pass\n", "the function 'on_step' is not marked @hookimpl"),
    "nerf": (PLUGIN, "the name 'nerf' is already taken by"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_listed_with_its_reason(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, reason = BROKEN[name]
    prepare(bad("", files={f"more/{name}/plugin.py": source.replace("{0}", "x").replace("{1}", UNIVERSAL)}), place)
    monkeypatch.setenv("MAQUETTE_PLUGIN_PATH", str(place / "more"))
    assert main(["plugins"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed: ")]
    assert f"failed: {name} (folder, " in line and reason in line and str(place / "more" / name) in line
    monkeypatch.setenv("MAQUETTE_STRICT", "1")
    code = main(["plugins"])
    check_told(bad("", f"plugin '{name}': ", reason), code, capsys.readouterr().err)


PROBE = """
import sys
from core.cli import main
for words in {0!r}:
    assert main(words) == 2, words
    assert not {{"torch", "numba", "diffusers", "transformers"}} & set(sys.modules), words
"""


def test_mistakes_that_need_nothing_heavy_load_nothing_heavy(place: Path) -> None:
    light = [k for k in VERBS if not k.startswith(("check-with", "bench-kernel-", "eval-prompts", "blank-prompt-in"))]
    heavy = ("run", "text 'a mug' --config", "text 'a mug' --seed -", "image p", "image n", "image e", "views p")
    light = [k for k in light if not VERBS[k].words.startswith(heavy) or VERBS[k].words == "image nowhere.png"]
    light += [
        "misspelt-preset",
        "no-file",
        "folder-for-a-file",
        "binary-file",
        "syntax",
        "extends-circle",
        "resume-nothing",
    ]
    light += ["resume-a-folder", "plugins-of-a-run-gone", "export-nothing", "export-a-folder", "export-no-format"]
    for name in light:
        prepare(TABLE[name], place)
    words = [shlex.split(TABLE[name].words) for name in light]
    assert len(words) > 35
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ["MAQUETTE_PLUGIN_PATH"] = ""
    words = [w for w in words if "t-command" not in w]
    done = subprocess.run([sys.executable, "-c", PROBE.format(words)], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name",
    ["misspelt-verb", "misspelt-preset", "syntax", "fit-a-lift", "export-a-folder", "weights-cut-short"],
)
def test_bad_input_to_the_program_itself(name: str, place: Path) -> None:
    case = TABLE[name]
    environ = {**os.environ, **prepare(case, place)}
    before = contents(place)
    command = [sys.executable, str(ROOT / "launch.py"), *shlex.split(case.words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    check_told(case, done.returncode, done.stderr)
    assert done.stdout == "" and contents(place) == before
