"""Configurations of threestudio as jobs: values in our units, schedules, what is told of the rest, and bad files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

from core.cli import main
from core.config.loading import load_job
from core.config.schedule import Schedule
from core.errors import UserError
from core.fields import Blob
from plugins.threestudio import values
from plugins.threestudio.command import refused
from plugins.threestudio.convert import chain, convert, tables
from plugins.threestudio.reading import Theirs

COARSE = """
name: coarse
tag: ${rmspace:${system.prompt_processor.prompt},_}
seed: 4
data_type: random-camera-datamodule
data: {width: [64, 256], height: [64, 256], resolution_milestones: [500], camera_distance_range: [1.5, 2.0],
       fovy_range: [40, 70], elevation_range: [-10, 45], camera_perturb: 0.0, up_perturb: 0.3}
system_type: dreamfusion-system
system:
  geometry_type: implicit-volume
  geometry: {radius: 2.0, normal_type: analytic, density_blob_std: 0.5, density_blob_scale: 8.0,
    pos_encoding_config: {otype: ProgressiveBandHashGrid, n_levels: 12, base_resolution: 16, per_level_scale: 1.5,
      n_features_per_level: 2, log2_hashmap_size: 15, start_level: 6, start_step: 100, update_steps: 50}}
  material_type: diffuse-with-point-light-material
  material: {ambient_only_steps: 200, diffuse_prob: 0.6, textureless_prob: 0.5}
  background_type: neural-environment-map-background
  background: {random_aug: true}
  renderer_type: nerf-volume-renderer
  renderer: {radius: '${system.geometry.radius}', num_samples_per_ray: 256, near_plane: 0.1}
  prompt_processor_type: stable-diffusion-prompt-processor
  prompt_processor: {prompt: '???', front_threshold: 30.0, back_threshold: 30.0}
  guidance_type: stable-diffusion-guidance
  guidance: {guidance_scale: 50.0, weighting_strategy: sds, max_step_percent: [300, 0.98, 0.5, 301],
    grad_clip: [1.0, 4.0, 400]}
  loggers: {wandb: {enable: false, project: any}}
  loss: {lambda_sds: 1.0, lambda_orient: [0, 10.0, 1000.0, 500], lambda_sparsity: 0.5, lambda_opaque: 0.0,
    lambda_z_variance: 2.56}
  optimizer:
    name: AdamW
    args: {lr: 0.02, betas: [0.9, 0.99], eps: 1.e-15}
    params: {geometry.encoding: {lr: 0.01}, geometry.density_network: {lr: 0.001}, background: {lr: 0.001}}
  scheduler: {name: SequentialLR, milestones: [10], schedulers: [
    {name: LinearLR, args: {start_factor: 0.1, total_iters: 10}},
    {name: ExponentialLR, args: {gamma: '${calc_exp_lr_decay_rate:0.1,${sub:${trainer.max_steps},10}}'}}]}
trainer: {max_steps: 1000, precision: 16-mixed, val_check_interval: 100}
checkpoint: {save_last: true, save_top_k: -1, every_n_train_steps: '${idiv:${trainer.max_steps},4}'}
"""
FINE = """
name: fine
system:
  refinement: true
  geometry_convert_from: ???
  geometry_type: tetrahedra-sdf-grid
  geometry: {isosurface_resolution: 64, fix_geometry: false}
  renderer_type: nvdiff-rasterizer
  guidance_type: stable-diffusion-guidance
  guidance: {max_step_percent: 0.5}
  loss: {lambda_sds: 1.0, lambda_normal_consistency: 100.0}
trainer: {max_steps: 300}
"""


def imported(folder: Path, text: str, name: str = "theirs.yaml") -> tuple[dict[str, Any], Theirs]:
    file = folder / name
    file.write_text(text)
    return convert(file)


def changed(text: str, **system: Any) -> str:
    """``text`` with further keys under ``system``, dotted by two underscores."""
    tree = yaml.safe_load(text)
    for path, value in system.items():
        *parts, last = path.split("__")
        node = tree["system"]
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = value
    return yaml.safe_dump(tree)


def test_a_file_becomes_a_job_key_by_key(tmp_path: Path) -> None:
    job, t = imported(tmp_path, COARSE)
    assert (job["name"], job["seed"], job["steps"], job["precision"]) == ("coarse", 4, 1000, "16-mixed")
    assert (job["checkpoint_every"], job["keep"], job["preview_every"]) == (250, 4, 100)
    assert job["data"]["distance"] == [2.4, 3.2] and job["data"]["fov"] == [40.0, 70.0]
    assert job["data"]["size"] == {"points": {0: 64, 499: 64, 500: 256}}
    assert job["geometry"]["finest"] == round(16 * 1.5**11)
    assert job["geometry"]["active"] == {"points": {0: 0.5, 100: 0.5, 400: 1.0}}
    assert job["material"] | {"light_spread": 1.0} == job["material"]
    assert job["material"]["unlit"] == {"points": {199: 1.0, 200: 0.4}} and job["material"]["textureless"] == 0.3
    assert job["background"] == {"type": "neural", "random": 0.5}
    assert job["prompts"] == {"type": "view-words", "front": 30.0} and "prompt" not in job
    assert job["optimizer"]["lr"] == 0.01 and job["geometry"]["network_lr"] == 0.1
    (guidance,) = job["guidance"]
    assert guidance["prior"]["model"] == "runwayml/stable-diffusion-v1-5"
    assert guidance["score"]["high"] == {"points": {300: 0.98, 301: 0.5}}
    assert guidance["score"]["clip"] == {"points": {0: 1.0, 400: 4.0}}
    losses = {"orientation": {"points": {0: 10.0, 500: 1000.0}}, "sparsity": 0.5, "z-variance": 1.0}
    assert job["losses"] == losses
    lost = {key for key, fate in t.fates.items() if fate.kind == "lost"}
    assert lost == {"data.up_perturb", "system.renderer.near_plane"}
    assert set(t.fates) == set(t.values)
    assert not refused(job)


def test_a_rate_that_warms_up_and_decays_does_so_here(tmp_path: Path) -> None:
    schedule = Schedule.parse(imported(tmp_path, COARSE)[0]["optimizer"]["schedule"])
    gamma = 0.1 ** (1 / 990)
    for step in (0, 5, 10, 200, 700, 1000):
        theirs = 0.1 + 0.9 * step / 10 if step < 10 else gamma ** (step - 10)
        assert schedule.at(step, 1001) == pytest.approx(theirs, rel=0.012)


def test_the_density_is_the_same_function_of_the_scene(tmp_path: Path) -> None:
    """softplus(raw + scale (1 - r / std)) per unit of length there; a ray sees the same optical depth here."""
    job, _ = imported(tmp_path, COARSE)
    names = ("bias", "bias_radius", "gain", "scale")
    options = type("Options", (), {n: job["geometry"][n] for n in names})()
    options.bias, options.bias_radius = Schedule.parse(options.bias), Schedule.parse(options.bias_radius)
    there, raw = torch.rand(50, 3) * 0.6 - 0.3, torch.randn(50)
    expected = F.softplus(raw + 8 * (1 - there.norm(dim=-1) / 0.5)) / 1.6
    torch.testing.assert_close(Blob(options, 1.0)(raw, there * 1.6), expected, atol=1e-5, rtol=1e-5)
    step = 2 * math.sqrt(3) * 2.0 / 256 * 1.6  # of theirs, in our units
    assert step * 0.97 < 2 / job["renderer"]["samples"] <= step


@pytest.mark.parametrize(("kind", "options", "scale"), [
    ("stable-diffusion-guidance", {}, 51), ("deep-floyd-guidance", {}, 51), ("stable-diffusion-sdi-guidance", {}, 51),
    ("stable-diffusion-guidance", {"prompt_processor__use_perp_neg": True}, 50),
    ("stable-diffusion-vsd-guidance", {}, 50), ("stable-diffusion-unified-guidance", {}, 50), ("zero123-guidance", {}, 50),
])  # fmt: skip
def test_guidance_scales_mean_what_they_meant(tmp_path: Path, kind: str, options: dict[str, Any], scale: float) -> None:
    job, _ = imported(tmp_path, changed(COARSE, guidance_type=kind, **options))
    assert job["guidance"][0]["score"]["scale"] == scale


@pytest.mark.parametrize(("options", "score"), [
    ({"guidance__use_sjc": True, "guidance__var_red": False}, {"type": "sjc", "variance_reduction": False}),
    ({"guidance_type": "stable-diffusion-vsd-guidance", "optimizer__params": {"guidance": {"lr": 1e-4}, "geometry": {"lr": 0.01}}},
     {"type": "vsd", "lr_scale": 0.01}),
    ({"guidance__use_img_loss": True, "guidance__sqrt_anneal": True, "loss__lambda_sds_img": 0.01},
     {"type": "hifa", "anneal": "sqrt", "image_weight": 0.01, "denoise_steps": 1}),
    ({"guidance_type": "stable-diffusion-sdi-guidance", "guidance__t_anneal": True, "guidance__inversion_n_steps": 7},
     {"type": "sdi", "anneal": "linear", "inversion_steps": 7}),
])  # fmt: skip
def test_switches_of_a_guidance_are_scores(tmp_path: Path, options: dict[str, Any], score: dict[str, Any]) -> None:
    job, _ = imported(tmp_path, changed(COARSE, **options))
    found = job["guidance"][0]["score"]
    assert {key: found[key] for key in score} == score
    assert not refused(job)


@pytest.mark.parametrize(("theirs", "ours"), [
    (0.5, 0.5), ([1.0, 4.0, 400], {"points": {0: 1.0, 400: 4.0}}), ([10, 1.0, 2.0, 20], {"points": {10: 1.0, 20: 2.0}}),
    ([0, 1.0, 2.0, 10, 5.0, 20], {"points": {0: 1.0, 10: 2.0, 20: 5.0}}),
    ([0, 1.0, 2.0, 10.0], 1.0),  # epochs, of which there is one
])  # fmt: skip
def test_scheduled_numbers(theirs: Any, ours: Any) -> None:
    assert values.schedule(theirs, "here") == ours


@pytest.mark.parametrize("bad", [[1, 2], [0, 1, 2, 0], [5, 1, 2, 3], ["a", 1, 2, 3], "soon", True])
def test_what_is_no_schedule_is_told(bad: Any) -> None:
    with pytest.raises(UserError, match="here: "):
        values.schedule(bad, "here")


def test_several_files_are_the_stages_of_one_job(tmp_path: Path) -> None:
    parts = [imported(tmp_path, COARSE, "a.yaml"), imported(tmp_path, FINE, "b.yaml")]
    job = load_job(chain([values for values, _ in parts]), extra={"prompt": "a red mug"})
    assert [(s.config.name, s.config.steps) for s in job.stages] == [("1-coarse", 1000), ("2-fine", 300)]
    assert [s.task.options.geometry.name for s in job.stages] == ["hash-grid", "tetrahedra"]
    assert not [key for key, fate in parts[1][1].fates.items() if fate.kind == "lost"]


def test_stages_of_their_systems(tmp_path: Path) -> None:
    job, _ = imported(tmp_path, changed(FINE, latent_steps=100, geometry__geometry_only=True))
    assert [(s["name"], s["steps"]) for s in job["stages"]] == [("rough", 100), ("geometry", 200)]
    assert job["stages"][0]["guidance"][0]["sees"] == "normals-as-latents" and job["guidance"][0]["sees"] == "normals"
    edit = changed(COARSE, guidance_type="stable-diffusion-instructpix2pix-guidance", start_editing_step=300,
                   loss={"lambda_sds": 0.0, "lambda_l1": 10.0}, prompt_processor={"prompt": "make it blue"})  # fmt: skip
    job, _ = imported(tmp_path, edit.replace("random-camera-datamodule", "multiview-camera-datamodule"))
    assert [s["data"]["type"] for s in job["stages"]] == ["given-views", "dataset-update"] and not refused(job)


def test_a_sketch_guides_the_field(tmp_path: Path) -> None:
    text = changed(COARSE, guide_shape="sketch.obj", loss={"lambda_sds": 1.0, "lambda_shape": 1.5})
    job, t = imported(tmp_path, text)
    assert job["geometry"]["type"] == "sketched" and job["geometry"]["file"] == "sketch.obj"
    assert job["geometry"]["field"]["type"] == "hash-grid" and job["losses"] == {"sketch-shape": 3.0}
    assert "twice its value" in t.notes[0] and not refused(job)


@pytest.mark.parametrize(("change", "said"), [
    ({"loss__lambda_sparsitty": 1.0}, "lambda_sparsitty: threestudio has no such loss .* Did you mean 'lambda_sparsity'"),
    ({"geometry__radius": [1.0, 2.0]}, r"system.geometry.radius: expected a number, found \[1.0, 2.0\]"),
    ({"material__diffuse_prob": [0.1]}, "diffuse_prob: expected a number"),
    ({"prompt_processor__prompt": {"a cat": "sitting"}}, "prompt: expected a sentence; YAML reads it as a block of keys"),
    ({"prompt_processor__prompt": True}, "YAML reads it as True, so write it in quotes"),
    ({"geometry_type": "implicit-volme"}, "'implicit-volme' is none of .* Did you mean 'implicit-volume'"),
    ({"guidance__max_step_percent": [1, 2]}, "max_step_percent: expected a number, or"),
    ({"loss__lambda_orient": "much"}, "lambda_orient: expected a number"),
    ({"renderer__radius": "${system.geometry.radios}"}, ""),
])  # fmt: skip
def test_what_cannot_be_meant_is_told_in_a_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    text = changed(COARSE, **change)
    if not said:  # a reference to nothing is a key without counterpart, with the reason
        fates = imported(tmp_path, text)[1].fates
        assert "radios" in fates["system.renderer.radius"].text and fates["system.renderer.radius"].kind == "lost"
        return
    with pytest.raises(UserError, match=said) as caught:
        imported(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 1


def test_other_files_are_refused(tmp_path: Path) -> None:
    for text, said in (("task: lift\n", "a job of Maquette already"), ("a: 1\n", "no block 'system'"),
                       ("a: [1\n", "cannot be read"), ("- 1\n", "no configuration of threestudio")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            imported(tmp_path, text)


def test_the_verb_writes_a_job_and_counts_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    imported(tmp_path / "in", COARSE, "coarse.yaml")
    assert (
        main(["import-threestudio", str(tmp_path / "in" / "coarse.yaml"), "--output", str(tmp_path / "job.yaml")]) == 0
    )
    assert "2 of " in capsys.readouterr().out
    head, written = (tmp_path / "job.yaml").read_text(), load_job(tmp_path / "job.yaml", ["prompt=a red mug"])
    assert "# no counterpart: system.renderer.near_plane = 0.1: rays begin" in head
    assert written.config.seed == 4 and written.stages[0].task.options.renderer.options.normals
    assert main(["import-threestudio", str(tmp_path / "in"), "--summary"]) == 0
    count = len(convert(tmp_path / "in" / "coarse.yaml")[1].values)
    assert f"1 files, 1 pass --dry-run; {count} keys" in capsys.readouterr().out
    assert main(["import-threestudio", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read" in capsys.readouterr().err


def test_the_table_says_one_thing_of_each_key() -> None:
    for pattern, rule in tables()["keys"].items():
        legal = {"to", "by", "only"} if "to" in rule else {"holds", "why", "lost"} if "holds" in rule else {"lost"}
        assert set(rule) <= legal and rule, pattern
