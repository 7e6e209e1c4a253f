"""The matrix of geometries and guidances: every cell is a sound job, some are run, the page shows what was found."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from PIL import Image

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError
from core.testing import check_component
from plugins.metrics import bench_matrix

GIVEN = yaml.safe_load(Path(bench_matrix.__file__).with_name("matrix.yaml").read_text())
CELLS = [(g, led) for g in GIVEN["geometries"] for led in GIVEN["guidances"]]
GUIDED = {"sds", "sds-plain", "novel-view"}
SMALL = {
    "novel-view": [
        "data.size=16", "data.cameras.batch=1", "data.cameras.size=16", "export=[{type: glb, texture: 64, resolution: 24}]"
    ],
    "sds": ["data.batch=1", "data.size=16", "export=[{type: glb, texture: 64, resolution: 24}]"],
    "dataset-update": [
        "data.updates=1", "data.denoise_steps=2", "data.cameras.batch=2", "data.cameras.size=16",
        "export=[{type: glb, texture: 64, resolution: 24}, splat-ply]",
    ],
}  # fmt: skip


def test_the_command_keeps_its_contract() -> None:
    assert check_component("command", "bench-matrix")


@pytest.mark.parametrize(("geometry", "led"), CELLS)
def test_every_cell_is_a_sound_job(geometry: str, led: str, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8)).save(picture := tmp_path / "mug.png")
    job = bench_matrix._job(GIVEN["geometries"][geometry], GIVEN["guidances"][led], 10, picture)
    checked = load_job(job, [], get_registry(), {"prompt": "a red mug"})
    options = checked.stages[0].task.options
    assert options.geometry.name == geometry
    assert bool(options.guidance) == (led in GUIDED)
    assert ("image" in options.losses) == (not led.startswith("sds"))
    assert (options.image is None) == ("from_picture" not in GIVEN["guidances"][led])
    assert [e.name for e in options.export] == ["glb", "splat-ply"][: 1 + (geometry == "splats")]


def test_losses_are_of_the_size_that_a_preset_expects() -> None:
    """Guidance in a preset of pictures is as small as their difference is, pictures in one of guidance as large."""
    led = GIVEN["guidances"]
    mixed = bench_matrix._job("splats", led["novel-view"], 10, Path("p.png"))
    assert mixed["guidance"][0]["weight"] == 1 / bench_matrix.SCALE
    assert mixed["losses"] == {"image": 2000 / bench_matrix.SCALE, "mask": 400 / bench_matrix.SCALE}
    assert bench_matrix._job("nerf", led["captioned"], 10, Path("p.png"))["losses"]["image"] == bench_matrix.SCALE


def test_every_geometry_that_a_prior_can_lift_has_a_row() -> None:
    names = {e.name for e in get_registry().entries("geometry") if e.plugin != "core"}
    own = {"mesh", "point-latent"}  # a mesh's shape is its user's, latents are those of a fitted run
    own |= {"image-planes", "sketched"}  # one picture's pixels; a volume round a sketch of the user's
    assert set(GIVEN["geometries"]) <= names and names - set(GIVEN["geometries"]) <= own


@pytest.mark.parametrize(
    ("geometry", "led"), [("splats", "dataset-update"), ("tetrahedra", "sds"), ("voxel", "novel-view")]
)
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
    assert Image.open(tmp_path / "matrix" / "matrix.png").width > 128
    assert any(name.endswith("splats.ply") for name in row["files"]) == (geometry == "splats")


def test_unknown_rows_and_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'splats'"):
        bench_matrix.bench(geometry=["splat"], output=tmp_path)
    with pytest.raises(UserError, match="no kind of object"):
        bench_matrix.bench(prompt="a thing", output=tmp_path)
