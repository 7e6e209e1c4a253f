"""``eval reconstruction``: what it measures, against closed forms, and a whole run small enough for a test."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml

from core.contracts import Context, Step
from core.discovery import get_registry
from core.errors import UserError
from core.testing import check_component
from plugins.metrics import eval_reconstruction
from plugins.metrics.eval_reconstruction import chosen_geometries, evaluate, mean, psnr, read_settings

SHIPPED = Path(eval_reconstruction.__file__).with_name("reconstruction.yaml")


def test_psnr_of_known_differences() -> None:
    truth = torch.zeros(2, 4, 4, 3)
    assert psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-4)
    assert psnr(truth, truth) == 100


def test_the_shipped_settings_are_six_objects_and_jobs_that_check() -> None:
    from core.config.loading import load_job

    given = read_settings(SHIPPED)
    assert len(given["objects"]) == 6
    names = chosen_geometries(given["geometries"], None)
    assert {"hash-grid", "splats", "tetrahedra"} <= set(names)
    for name in names:
        job = {"name": "reconstruct", "prompt": "a mug", **given["job"], **given["geometries"][name]}
        told = [f"data.{k}={v}" for k, v in given["objects"][0].items()]
        assert load_job(job, told, get_registry()).stages[0].config.steps >= 100


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'hash-grid'"):
        chosen_geometries({"hash-grid": {}}, ["hashgrid"])
    (tmp_path / "bad.yaml").write_text("objects: 3", encoding="utf-8")
    with pytest.raises(UserError, match="must hold a list 'objects'"):
        read_settings(tmp_path / "bad.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")


def test_a_small_fit_is_measured(tmp_path: Path) -> None:
    given = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    fit = given["geometries"]["hash-grid"]
    fit |= {"steps": 20, "geometry": {"type": "hash-grid", "levels": 4, "finest": 32, "log2_table": 12}}
    fit |= {"renderer": {"type": "volume", "samples": 32, "grid": 24}}
    fit["data"] = {"type": "procedural-views", "batch": 2, "stride": 2, "views": 12, "held_out": 2}
    given["geometries"] = {"hash-grid": fit}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    found = evaluate(geometry=None, objects=1, size=32, output=tmp_path / "runs", settings=tmp_path / "small.yaml")
    (row,) = found["rows"]
    assert row["object"] == "blue mug" and 8 < row["psnr"] < 60 and row["seconds"] > 0
    assert 0 < row["chamfer_percent"] < 100 or math.isinf(row["chamfer_percent"])
    assert found["totals"]["hash-grid"]["psnr"] == row["psnr"]
    assert (tmp_path / "runs/hash-grid/blue-mug/held-out.png").exists()


def test_means_are_over_objects_and_the_peak_is_the_largest() -> None:
    rows = [{c: float(k) for c in eval_reconstruction.COLUMNS} for k in (1, 3)]
    assert mean(rows)["psnr"] == 2 and mean(rows)["peak_memory_mib"] == 3


def test_views_keep_the_data_contract() -> None:
    check_component("data", "procedural-views", options={"size": 16, "views": 3, "held_out": 1})


@pytest.mark.parametrize("stride", [2, 3])
def test_strided_pictures_have_the_rays_of_the_whole_ones(stride: int) -> None:
    views = get_registry().find("data", "procedural-views").load()
    options = {"category": "mug", "seed": 2_000_001, "size": 24, "views": 5, "batch": 1}
    whole, part = (views(views.Config(**options, stride=s), Context()) for s in (1, stride))
    for index in range(3):
        batch = part.batch(Step(index, 10))
        origins, directions = batch["cameras"].rays()
        (view,) = (k for k, c in enumerate(whole.cameras().position) if torch.equal(c, batch["cameras"].position[0]))
        every = whole.cameras().rays()[1][view]
        picture = whole.pictures()[0][view]
        matched = (every[:, :, None] - directions[0].view(-1, 3)).norm(dim=-1).flatten(0, 1).min(0)
        assert float(matched.values.max()) < 1e-5 and len(matched.indices) == len(set(matched.indices.tolist()))
        torch.testing.assert_close(batch["target"].reshape(-1, 3), picture.view(-1, 3)[matched.indices])
        assert batch["target-mask"].shape == (*batch["target"].shape[:3], 1)
    held = whole.cameras(held_out=True).position
    assert float(torch.cdist(held, whole.cameras().position).min()) > 0.05
