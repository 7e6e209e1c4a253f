"""Generators: named by ``task:``, fitted, sampled, exported, and a lift's beginning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from core import discovery
from core.cli import main
from core.config.loading import load_job
from core.errors import UserError
from core.generative.drawing import class_of, draw, open_generator
from core.generative.sheet import sample_sheet
from core.testing import check_component

PLUGIN = """
from core import hookimpl
API = 1

@hookimpl
def register(registry):
    registry.add("generator", "toy-balls", "plugins.toy_balls.balls:Balls", "balls", gives=["mesh", "features"])
    registry.add("generator", "toy-pictures", "plugins.toy_balls.balls:Pictures", "grey pictures")
"""
MODULE = '''
"""Balls whose radius is learned; pictures of one grey level."""
import torch
import trimesh
from torch import nn

import core
from core.generative.drawing import class_of
from core.generative.scene import LookConfig, mesh_scene


class Balls(core.Generator):
    """Spheres of a learned radius, small or large."""

    class Config(core.Config):
        look: LookConfig
        """How they are shown."""
        spread: float = 0.1
        """Of the radius."""

    def __init__(self, options, context):
        super().__init__(options, context)
        self.radius = nn.Parameter(0.1 + 0.3 * torch.rand((), generator=context.generator("radius")))

    def training_step(self, step):
        return {"radius": (self.radius - 0.5).square()}

    def sample(self, count, asked, generator):
        kind = class_of(asked.prompt if asked else "", ["small", "large"], "toy-balls")
        size = self.radius * (1.0 if kind is None else (0.5, 1.5)[kind])
        made = []
        for k in range(count):
            ball = trimesh.creation.icosphere(2, float(size + self.options.spread * torch.rand((), generator=generator)))
            mesh = core.Mesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())
            made.append(mesh_scene(mesh, self.options.look, self.context, f"ball-{k}"))
        return made


class Pictures(core.Generator):
    """Pictures of one learned grey level."""

    class Config(core.Config):
        side: int = 8
        """In pixels."""

    def __init__(self, options, context):
        super().__init__(options, context)
        self.level = nn.Parameter(torch.rand((), generator=context.generator("level")))

    def training_step(self, step):
        return {"level": (self.level - 0.5).square()}

    def sample(self, count, asked, generator):
        noise = torch.rand(count, self.options.side, self.options.side, 3, generator=generator)
        return list((0.5 * self.level.detach() + 0.5 * noise).clamp(0, 1))
'''
LOOK = {"material": "textureless", "background": "solid", "renderer": "mesh-rasterizer"}
LOOP = {"steps": 3, "device": "cpu", "preview_every": 0, "checkpoint_every": 0, "log_every": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two fitted runs, ``balls`` and ``pictures``, and a plugin that knows their generators."""
    folder = tmp_path_factory.mktemp("toy")
    plugin = folder / "plugins" / "toy_balls"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text("")
    (plugin / "plugin.py").write_text(PLUGIN)
    (plugin / "balls.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_PLUGIN_PATH", str(plugin.parent))
        discovery.configure()
        for name, more in (("balls", {"look": LOOK}), ("pictures", {})):
            job = load_job({"task": f"toy-{name}", "name": name, **LOOP, **more})
            from core.job import run_job

            assert run_job(job, job.registry, folder / name, quiet=True).state == "finished"
        yield folder
    discovery.configure()


def test_a_generator_is_a_jobs_task_and_its_name_is_remembered(runs: Path) -> None:
    job = load_job(runs / "balls" / "config.yaml")
    assert (job.stages[0].task.kind, job.resolved["task"]) == ("generator", "toy-balls")


def test_a_misspelt_generator_is_recognised(runs: Path) -> None:
    with pytest.raises(UserError, match="no generator named 'toy-bals'. Did you mean 'toy-balls'"):
        load_job({"task": "toy-bals", "look": LOOK})


def test_the_contract_is_checked(runs: Path) -> None:
    passed = check_component("generator", "toy-balls", options={"look": LOOK})
    assert "samples follow from the generator that is handed in" in passed
    assert "colours of samples are in [0, 1]" in check_component("generator", "toy-pictures")


def test_describe_and_plugins_list_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--kind", "generator"]) == 0
    assert main(["describe", "toy-balls"]) == 0
    told = capsys.readouterr().out
    assert "toy-pictures" in told and "task: toy-balls" in told


def test_sample_writes_a_sheet_pictures_and_assets(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", str(runs / "balls"), "-n", "3", "--seed", "3", "--to", "ply", "prompt=a large ball"]
    assert main(words) == 0, capsys.readouterr().err
    folder = runs / "balls" / "samples"
    assert sorted(p.name for p in folder.iterdir() if p.suffix) == [f"{k:02d}.png" for k in range(3)] + ["sheet.png"]
    meshes = [trimesh.load(next((folder / f"{k:02d}").glob("*.ply")), force="mesh") for k in range(3)]
    reach = [float(np.abs(mesh.vertices).max()) for mesh in meshes]
    assert len(set(np.round(reach, 4))) == 3 and all(mesh.is_watertight for mesh in meshes)
    _, generator = open_generator(runs / "balls")
    again = [float(scene.geometry.mesh(0).vertices.abs().max()) for scene in draw(generator, 2, 3)]
    shift = 0.5 * generator.radius.item()  # the same stream at the plain size
    assert np.allclose(np.array(reach[:2]) - shift, again, atol=2e-3)
    assert main([*words[:2], "-n", "1"]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["00.png", "sheet.png"]  # the earlier samples are gone


def test_pictures_keep_their_pixels(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(runs / "pictures"), "-n", "2", "side=6", "--export"]) == 0, capsys.readouterr().err
    folder = runs / "pictures" / "samples"
    _, generator = open_generator(runs / "pictures", ["side=6"])
    wanted = (draw(generator, 2)[1] * 255).round().byte().numpy()
    assert np.array_equal(np.asarray(Image.open(folder / "01.png")), wanted)
    assert not (folder / "01").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sample", "no-such-run"], "no-such-run does not exist"),
        (["sample", "{balls}", "-n", "0"], "1 to 256"),
        (["sample", "{balls}", "-n", "257"], "1 to 256"),
        (["sample", "{balls}", "prompt=a teapot"], "'a teapot' names no class that it knows; it was fitted to: small, large"),
        (["sample", "{balls}", "spreed=1"], "Did you mean 'spread'"),
        (["sample", "{balls}", "image=nowhere.png"], "there is no picture nowhere.png"),
        (["export", "{balls}"], "sample RUN"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(words: list[str], told: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.format(balls=runs / "balls") for word in words]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error and len(error.splitlines()) == 1


def test_a_run_that_is_no_generator_cannot_be_sampled(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"task": "embedded-unet", "data": "procedural"}))
    with pytest.raises(UserError, match="'embedded-unet', which cannot be sampled"):
        open_generator(tmp_path)


def test_classes_are_told_by_their_word() -> None:
    names = ["chair", "mug"]
    assert [class_of(text, names, "x") for text in ("", "a Red mug!", "two chairs")] == [None, 1, 0]
    with pytest.raises(UserError, match="names several classes"):
        class_of("a chair and a mug", names, "x")


def test_a_sheet_holds_every_picture() -> None:
    colours = [(20 * k + 10, 0, 0) for k in range(7)]
    sheet = sample_sheet([Image.new("RGB", (32, 32), colour) for colour in colours], "seven")
    found = {tuple(pixel) for pixel in np.asarray(sheet).reshape(-1, 3)}
    assert set(colours) <= found


def test_a_lift_starts_from_a_sample_of_the_prompt(runs: Path) -> None:
    from core.stages import build_chain, build_task

    changes = ["prompt=a small ball", f"init.run={runs / 'balls'}", "init.seed=2", "geometry.count=200"]
    job = load_job("splats", changes)
    lift = build_task(job, job.registry, 0, torch.device("cpu"))
    _, generator = open_generator(runs / "balls")
    plain = float(draw(generator, 1, 2)[0].geometry.mesh(0).vertices.norm(dim=-1).max())
    wanted = plain - 0.5 * generator.radius.item()
    reach = lift.geometry.splats().means.norm(dim=-1)
    assert float(reach.min()) > 0.9 * wanted and float(reach.max()) < 1.05 * wanted
    restored = build_chain(job, job.registry, runs, 0, torch.device("cpu"))  # a checkpoint will fill it
    assert float(restored.geometry.splats().means.norm(dim=-1).min()) < 0.5 * wanted
    with pytest.raises(UserError, match="'mesh-diffusion' was expected and .* fitted 'toy-balls'"):
        wrong = load_job("splats", [*changes, "init.type=mesh-diffusion"])
        build_task(wrong, wrong.registry, 0, torch.device("cpu"))
    with pytest.raises(UserError, match="init.run: .*nowhere"):
        gone = load_job("splats", ["prompt=a ball", "init.run=nowhere"])
        build_task(gone, gone.registry, 0, torch.device("cpu"))
