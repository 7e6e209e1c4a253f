"""``vram=8gb``: which settings reach which parts of a job, and what has the last word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.config import vram
from core.config.loading import load_job
from core.errors import ConfigError


def options(preset: str | Path | dict[str, Any], *overrides: str, stage: int = 0, **extra: Any) -> Any:
    job = load_job(preset, overrides, extra={"prompt": "a red mug"} | extra)
    return job, job.stages[stage].task.options


def test_settings_reach_every_prior_the_renderer_and_the_views() -> None:
    job, found = options("dreamfusion-sd", "vram=8gb", "data.batch=4")
    prior = found.guidance[0].prior.options
    assert (prior.offload, prior.free_text, prior.vae_tiling, prior.vae_checkpointing) == ("idle", True, True, True)
    assert prior.precision == "float16" and job.config.precision == "16-mixed"  # only full precision is lowered
    assert found.renderer.options.training_rays == 4096 and found.renderer.options.rays == 8192
    assert found.data.options.batch == 4 and job.stages[0].config.accumulate == 1


def test_the_order_is_file_overlay_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: text-to-3d-sds\nvram: 8gb\nprecision: 32-true\nguidance: [{prior: {type: stable-diffusion, model: sd15, "
        "offload: none}, score: sds}]\nprompts: view-words\n"
    )
    job, found = options(tmp_path / "mine.yaml")
    assert found.guidance[0].prior.options.offload == "idle" and found.guidance[0].prior.options.precision == "bfloat16"
    assert (found.data.options.batch, job.stages[0].config.accumulate, job.config.precision) == (1, 4, "auto")
    _, found = options(tmp_path / "mine.yaml", "guidance.0.prior.offload=stream", "vram=16gb")
    assert found.guidance[0].prior.options.offload == "stream" and found.data.options.batch == 2
    job, found = options(tmp_path / "mine.yaml", "accumulate=1", "renderer.training_rays=0", "precision=32-true")
    assert (job.stages[0].config.accumulate, found.renderer.options.training_rays, job.config.precision) == (
        1,
        0,
        "32-true",
    )
    job, found = options(tmp_path / "mine.yaml", "vram=80gb")
    assert found.data.options.batch == 4 and found.guidance[0].prior.options.offload == "none"


def test_only_options_that_a_component_has_are_set() -> None:
    """The embedded prior has none of a large prior's, a mesh renderer none of a volume renderer's."""
    job, found = options("dmtet", "vram=8gb")
    assert found.renderer.name == "mesh-rasterizer" and found.data.options.prior.name == "embedded"
    plain, _ = options("dmtet")
    changed = {k for k in job.resolved if job.resolved[k] != plain.resolved[k]}
    assert changed == {"data", "accumulate", "precision"}


def test_stages_and_sets_of_views_and_updates_of_pictures() -> None:
    job, second = options("magic3d", "vram=8gb", stage=1)
    assert second.guidance[0].prior.options.offload == "idle" and second.renderer.name == "mesh-rasterizer"
    job, first = options(
        {"extends": "text-to-3d-sds", "stages": [{"steps": 5}, {"steps": 5, "data": {"batch": 8}}]}, "vram=8gb"
    )
    assert [s.task.options.data.options.batch for s in job.stages] == [1, 1]
    assert [s.config.accumulate for s in job.stages] == [4, 8]
    sets = {"extends": "text-to-3d-sds", "data": {"orbit": 4, "batch": 8}}
    assert options(sets, "vram=8gb")[1].data.options.batch == 4  # four views are one set
    edit = options("instruct-nerf2nerf", "vram=8gb", stage=1, image="folder")[1].data.options
    assert edit.cameras.options.batch == 32 and edit.chunk == 4 and edit.prior.options.offload == "idle"


@pytest.mark.parametrize("size", vram.names())
def test_every_preset_takes_every_size(size: str) -> None:
    for preset in ("text-to-3d", "image-to-3d", "zero123", "splats", "embedded-unet"):
        extra = {"prompt": "a red mug"} if "embedded-u" not in preset else {}
        assert load_job(
            preset, [f"vram={size}"], extra=extra | ({"image": "a.png"} if preset in ("image-to-3d", "zero123") else {})
        )


def test_a_size_that_there_is_not() -> None:
    with pytest.raises(
        ConfigError,
        match="vram=12gb on the command line: vram: there are settings for 8gb, 16gb, 24gb, 80gb, found '12gb'",
    ):
        options("text-to-3d-sds", "vram=12gb")
