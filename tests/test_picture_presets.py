"""Every preset that starts from a picture makes an asset, with the priors that ship and a few steps of each stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trimesh
from PIL import Image

from core.config.loading import load_job
from core.discovery import get_registry
from core.job import run_job

FEW = ("steps=3", "preview_every=0", "checkpoint_every=0", "export=[{type: glb, resolution: 24, texture: 64}]")
COARSE = ("renderer.samples=16", "renderer.warmup=2", "geometry.levels=4")
ONE_UPDATE = ("data.updates=1", "data.denoise_steps=4", "data.cameras.batch=4", "data.cameras.size=32")
PRESETS: dict[str, tuple[str, ...]] = {
    "image-to-3d": (*FEW, *COARSE, *ONE_UPDATE),
    "imagedream": (*FEW, *COARSE, *ONE_UPDATE),
    "zero123": (*FEW, *COARSE, "data.cameras.size=32"),
    "zero123-then-detail": (
        *FEW[1:], *COARSE, "stages.0.steps=3", "stages.1.steps=2", "stages.0.data.cameras.size=32",
        *(f"stages.1.{o}" for o in ONE_UPDATE),
    ),
    "magic123": (*FEW, *COARSE, "data.cameras.size=32"),
    "realfusion": (*FEW[1:], *COARSE, "stages.0.steps=3", "stages.1.steps=3", "stages.1.data.cameras.size=32"),
    "dreamgaussian": (*FEW[1:], *ONE_UPDATE[1:], "stages.0.steps=4", "stages.1.steps=2"),
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = torch.zeros(96, 96, 4, dtype=torch.uint8)
    pixels[24:72, 16:80] = torch.tensor([40, 60, 200, 255], dtype=torch.uint8)
    path = tmp_path_factory.mktemp("pictures") / "box.png"
    Image.fromarray(pixels.numpy()).save(path)
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_it_makes_an_asset(preset: str, picture: Path, tmp_path: Path) -> None:
    extra = {"image": str(picture), "prompt": "a blue box" if preset == "magic123" else None}
    job = load_job(preset, PRESETS[preset], get_registry(), extra)
    run = run_job(job, get_registry(), folder=tmp_path / "run", quiet=True)
    assert run.state == "finished"
    (asset,) = run.assets.glob("*.glb")
    assert len(trimesh.load(asset, force="mesh").faces) > 10  # type: ignore[union-attr]
