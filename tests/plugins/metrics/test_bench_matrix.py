"""The matrix of geometries and guidances: every cell is a sound job, some are run, the page shows what was found."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError
from core.testing import check_component
from plugins.metrics import bench_matrix

GIVEN = yaml.safe_load(Path(bench_matrix.__file__).with_name("matrix.yaml").read_text())
CELLS = [(g, led) for g in GIVEN["geometries"] for led in GIVEN["guidances"]]
SMALL = {
    "sds": ["data.batch=1", "data.size=16", "export=[{type: glb, texture: 64, resolution: 24}]"],
    "dataset-update": [
        "data.updates=1", "data.denoise_steps=2", "data.cameras.batch=2", "data.cameras.size=16",
        "export=[{type: glb, texture: 64, resolution: 24}]",
    ],
}  # fmt: skip


def test_the_command_keeps_its_contract() -> None:
    assert check_component("command", "bench-matrix")


@pytest.mark.parametrize(("geometry", "led"), CELLS)
def test_every_cell_is_a_sound_job(geometry: str, led: str) -> None:
    job = bench_matrix._job(GIVEN["geometries"][geometry], GIVEN["guidances"][led], 10)
    checked = load_job(job, [], get_registry(), {"prompt": "a red mug"})
    options = checked.stages[0].task.options
    assert options.geometry.name == geometry
    assert bool(options.guidance) == led.startswith("sds")
    assert ("image" in options.losses) != led.startswith("sds")


def test_every_geometry_that_a_prior_can_lift_has_a_row() -> None:
    names = {e.name for e in get_registry().entries("geometry") if e.plugin != "core"}
    own = {"mesh", "point-latent"}  # a mesh's shape is its user's, latents are those of a fitted run
    assert names - set(GIVEN["geometries"]) == own


@pytest.mark.parametrize(("geometry", "led"), [("splats", "dataset-update"), ("tetrahedra", "sds")])
def test_cells_are_lifted_judged_and_exported(geometry: str, led: str, tmp_path: Path) -> None:
    found = bench_matrix.bench(
        steps=2, geometry=[geometry], guidance=[led], output=tmp_path / "matrix", option=SMALL[led]
    )
    (row,) = found["rows"]
    assert 0 <= row["before"] <= 1 and 0 <= row["after"] <= 1
    assert any(name.endswith(".glb") for name in row["files"])
    page = (tmp_path / "matrix" / "index.html").read_text()
    assert f"{row['folder']}/views.png" in page and (tmp_path / "matrix" / row["folder"] / "views.png").is_file()
    assert geometry in (tmp_path / "matrix" / "matrix.md").read_text()


def test_unknown_rows_and_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'splats'"):
        bench_matrix.bench(geometry=["splat"], output=tmp_path)
    with pytest.raises(UserError, match="no kind of object"):
        bench_matrix.bench(prompt="a thing", output=tmp_path)
