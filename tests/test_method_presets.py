"""Every method's preset is a job without a mistake, and its small twin is the same method and makes an asset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from PIL import Image

from core import losses
from core.config.job import Job
from core.config.loading import load_job
from core.contracts import Step
from core.discovery import get_registry
from core.job import run_job
from core.types import Cameras, Render

STAGES = {
    "dreamfusion-sd": 1, "dreamfusion-if": 1, "magic3d": 2, "prolificdreamer": 3, "sjc": 1, "latent-nerf": 2,
    "sketch-shape": 2, "fantasia3d": 3, "textmesh": 2, "hifa": 1, "sdi": 1, "instruct-nerf2nerf": 2,
    "control4d-static": 2, "gaussiandreamer": 1, "luciddreamer": 1, "dreamgaussian-sd": 2, "mvdream-sd": 1,
}  # fmt: skip
FOLLOWS_PICTURES = ("instruct-nerf2nerf", "control4d-static")

FIELD = ("renderer.samples=12", "renderer.grid=12", "renderer.warmup=1", "geometry.levels=3", "data.batch=2")
COARSE = ("data.size=16", *FIELD)
SKETCHED = (*FIELD[:3], "geometry.field.levels=3", "geometry.cells=16", "data.batch=2")
SURFACE = ("geometry.resolution=10", "geometry.levels=3", "data.size=16")
EDIT = ("data.cameras.batch=2", "data.cameras.size=16", "data.batch=2", "data.updates=1", "data.denoise_steps=4")
MESH = ("geometry.resolution=24", "geometry.faces=300", "geometry.levels=3")
GLB, SPLATS = "export=[{type: glb, resolution: 24, texture: 64}]", "export=[splat-ply]"
PLY = "export=[{type: ply, resolution: 24}]"


def staged(*stages: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"stages.{k}.{option}" for k, options in enumerate(stages) for option in options)


TINY: dict[str, tuple[str, ...]] = {
    "dreamfusion-sd": (*COARSE, PLY),
    "dreamfusion-if": (*COARSE, PLY),
    "magic3d": (*staged(COARSE, SURFACE), PLY),
    "prolificdreamer": (*staged(COARSE, SURFACE, SURFACE), PLY),
    "sjc": ("geometry.cells=12", "data.batch=2", *FIELD[:3], "export=[{type: sheet, size: 16, columns: 2}]"),
    "latent-nerf": (*staged(FIELD, COARSE), PLY),
    "sketch-shape": (*staged(SKETCHED, (*SKETCHED, "data.size=16")), PLY),
    "fantasia3d": (*staged(SURFACE, SURFACE, SURFACE), GLB),
    "textmesh": (*staged((*COARSE, "geometry.base_cells=24"), (*MESH, "data.size=16")), PLY),
    "hifa": (*COARSE, PLY),
    "sdi": (*COARSE, "guidance.0.score.inversion_steps=2", PLY),
    "instruct-nerf2nerf": (*staged(COARSE, (*FIELD[:4], *EDIT)), PLY),
    "control4d-static": (*staged(COARSE, (*FIELD[:4], *EDIT)), PLY),
    "gaussiandreamer": ("geometry.count=100", "data.size=16", SPLATS),
    "luciddreamer": ("geometry.count=100", "data.size=16", SPLATS),
    "dreamgaussian-sd": (*staged(("geometry.count=200", "data.size=16"), (*MESH, *EDIT)), GLB),
    "mvdream-sd": ("data.size=16", *FIELD[:4], PLY),
}
"""What makes a twin small enough for a test; the sizes of each stage."""


def twin(preset: str) -> str:
    return f"{preset}-embedded"


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four pictures of a box, and from where each was taken."""
    folder = tmp_path_factory.mktemp("posed")
    pixels = torch.zeros(32, 32, 4, dtype=torch.uint8)
    pixels[8:24, 8:24] = torch.tensor([200, 40, 30, 255], dtype=torch.uint8)
    views = [{"file": f"{turn}.png", "azimuth": turn, "elevation": 15} for turn in (0, 90, 180, 270)]
    for view in views:
        Image.fromarray(pixels.numpy()).save(folder / str(view["file"]))
    (folder / "cameras.json").write_text(json.dumps({"fov": 40, "distance": 3, "views": views}))
    return folder


def load(name: str, preset: str, posed: Path, overrides: tuple[str, ...] = ()) -> Job:
    extra = {"prompt": "a red mug", "image": str(posed) if preset in FOLLOWS_PICTURES else None}
    return load_job(name, overrides, get_registry(), extra)


@pytest.mark.parametrize("preset", STAGES)
def test_it_is_a_valid_job(preset: str, tmp_path: Path) -> None:
    assert len(load(preset, preset, tmp_path).stages) == STAGES[preset]


def shape_of(job: Job) -> list[dict[str, Any]]:
    """What a method consists of, stage by stage; priors and numbers aside."""
    parts = ("geometry", "material", "renderer", "prompts")
    return [
        {part: getattr(stage.task.options, part).name for part in parts}
        | {
            "name": stage.config.name, "optimizer": stage.config.optimizer.type, "data": stage.task.options.data.name,
            "losses": sorted(stage.task.options.losses),
            "guidance": [(g.score.name, g.sees) for g in stage.task.options.guidance],
        }
        for stage in job.stages
    ]  # fmt: skip


@pytest.mark.parametrize("preset", STAGES)
def test_its_twin_is_the_same_method(preset: str, tmp_path: Path) -> None:
    published, small = (shape_of(load(name, preset, tmp_path)) for name in (preset, twin(preset)))
    assert small == published


@pytest.mark.parametrize("preset", TINY)
def test_its_twin_makes_an_asset(preset: str, posed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through all its stages, two steps each, with the prior that ships."""
    for name, value in {"fusion._VIEWS": 6, "fusion._SIZE": 48}.items():  # pictures that a set's surface is fused from
        monkeypatch.setattr(f"plugins.splats.{name}", value)
    for name, value in {"FIT_STEPS": 2, "FIT_POINTS": 512, "FIT_BATCH": 256}.items():  # of an earlier stage's colours
        monkeypatch.setattr(f"plugins.mesh.texture.{name}", value)
    monkeypatch.setattr("core.fields.FIT_STEPS", 2)
    many = STAGES[preset] > 1
    steps = staged(*[("steps=2",)] * STAGES[preset]) if many else ("steps=2",)
    quiet = ("device=cpu", "preview_every=0", "checkpoint_every=0")
    job = load(twin(preset), preset, posed, (*quiet, *steps, *TINY[preset]))
    run = run_job(job, get_registry(), folder=tmp_path / "run", quiet=True)
    assert run.state == "finished"
    (asset,) = run.assets.iterdir()
    if "splat" not in asset.name and asset.suffix in (".glb", ".ply"):
        assert len(trimesh.load(asset, force="mesh").faces) > 10  # type: ignore[union-attr]
    assert asset.stat().st_size > 1000


def seen(depth: list[float], opacity: list[float], variance: list[float]) -> Render:
    angle = torch.zeros(1)
    cameras = Cameras.orbit(angle, angle, torch.full((1,), 3.0), torch.full((1,), 0.7), 4, 4)
    shaped = [torch.tensor(x).view(1, 4, 4, 1) for x in (depth, opacity)]
    extras = {"depth_variance": torch.tensor(variance)}
    return Render(torch.zeros(1, 4, 4, 3), shaped[1], cameras, depth=shaped[0], extras=extras)


def test_z_variance_counts_only_rays_that_see_the_object() -> None:
    render = seen([3.0] * 16, [0.8, 0.4, *[0.0] * 14], [0.08, 9.0, *[0.0] * 14])
    assert float(losses.z_variance(render, Step(0, 1))) == pytest.approx(0.1 / 16)


def test_centre_depth_is_lower_with_the_object_in_the_middle() -> None:
    middle = [float(k in (5, 6, 9, 10)) for k in range(16)]
    corner = [float(k in (0, 1, 4)) for k in range(16)]
    inside, aside = (float(losses.centre_depth(seen([2.5] * 16, o, [0.0] * 16), Step(0, 1))) for o in (middle, corner))
    assert inside == pytest.approx(-torch.tensor(1.5).log().item(), abs=1e-6)
    assert aside > inside
