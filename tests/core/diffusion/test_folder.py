"""Pipeline folders that cannot be used are refused in one sentence, before anything is loaded; hub names are looked up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from core.contracts import Context
from core.diffusion import folder as folder_module
from core.diffusion.folder import located, network_config, open_pipeline, whole
from core.diffusion.latent import KINDS
from core.diffusion.process import DiffusionProcess, FlowProcess
from core.discovery import get_registry
from core.errors import UserError

ACCEPTS = ("StableDiffusionPipeline",)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def refused(source: Any, **more: Any) -> str:
    context = Context(parts={"registry": get_registry()})
    with pytest.raises(UserError) as caught:
        open_pipeline(str(source), KINDS, ACCEPTS, context, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rename_class(folder: Path, name: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        ("StableDiffusionXLPipeline", "sdxl"), ("IFPipeline", "deepfloyd-if"), ("FluxPipeline", "flux"),
        ("StableDiffusion3Pipeline", "stable-diffusion-3"), ("SanaPipeline", "sana"),
    ],
)  # fmt: skip
def test_a_folder_of_another_pipeline_is_refused_with_the_prior_that_reads_it(
    copy: Path, name: str, prior: str
) -> None:
    rename_class(copy, name)
    said = refused(copy)
    assert said.startswith(f"{copy} holds a {name}, not a StableDiffusionPipeline; load it with the prior ")
    assert f"'{prior}'" in said


@pytest.mark.parametrize("name", ["WanPipeline", ["remote_code", "MyPipeline"]])
def test_a_pipeline_that_no_prior_reads_is_named(copy: Path, name: Any) -> None:
    rename_class(copy, name)
    shown = name if isinstance(name, str) else name[1]
    assert refused(copy).endswith(f"holds a {shown}, not a StableDiffusionPipeline; no prior here reads that")


def test_the_prior_itself_refuses_it(copy: Path) -> None:
    from plugins.sdxl.prior import StableDiffusionXL

    options = StableDiffusionXL.Config(model=str(copy))
    with pytest.raises(
        UserError, match="holds a StableDiffusionPipeline, not a StableDiffusionXLPipeline or .*'stable-"
    ):
        StableDiffusionXL(options, Context(parts={"registry": get_registry()}))


def test_a_folder_without_an_index_is_judged_by_its_parts(copy: Path) -> None:
    (copy / "model_index.json").unlink()
    assert open_pipeline(str(copy), KINDS, ACCEPTS).load("scheduler").config.prediction_type == "v_prediction"


def test_an_index_that_cannot_be_read_is_named(copy: Path) -> None:
    (copy / "model_index.json").write_text("{")
    assert refused(copy).startswith(f"{copy / 'model_index.json'} cannot be read: ")


def test_a_single_file_is_no_folder(copy: Path) -> None:
    said = refused(copy / "model_index.json")
    assert said.endswith("is a file; this prior reads folders in diffusers' format, with a model_index.json")


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_half_written_weights_are_told_before_anything_is_loaded(copy: Path, keep: int) -> None:
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    assert whole(file)
    file.write_bytes(file.read_bytes()[:keep])
    assert not whole(file)
    said = refused(copy)
    assert said.startswith(f"cannot load unet of '{copy}': {file.name} is damaged or only half written; delete it and")


def test_a_variant_is_taken_where_it_is_and_named_where_it_is_all_there_is(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    special = weights.with_name("diffusion_pytorch_model.fp16.safetensors")
    weights.rename(special)
    assert refused(copy) == f"{copy}: unet holds only the variant fp16; set variant=fp16"
    pipeline = open_pipeline(str(copy), KINDS, ACCEPTS, variant="fp16")
    assert pipeline.load("unet").config.out_channels == 4  # and the others are there without a variant
    assert not pipeline.load("vae").training
    special.write_bytes(b"cut")
    assert "is damaged" in refused(copy, variant="fp16")


def test_a_part_may_be_absent_where_the_prior_says_so(copy: Path) -> None:
    shutil.rmtree(copy / "text_encoder")
    assert refused(copy).endswith("is no diffusers pipeline folder: it lacks text_encoder")
    assert "text_encoder" not in open_pipeline(str(copy), KINDS, ACCEPTS, optional=["text_encoder"]).kinds


def test_offline_with_nothing_cached_says_what_to_do(hub: Path) -> None:
    said = refused("owner/name")
    assert said.startswith("'owner/name' is not in the cache, and HF_HUB_OFFLINE")
    assert "hf download owner/name" in said
    with pytest.raises(UserError, match="'owner/name'"):
        network_config("owner/name", "unet")


def test_what_the_hub_has_cached_needs_no_network(folder: Path, hub: Path) -> None:
    commit = "0" * 40
    repository = hub / "models--owner--name"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert located("owner/name") == repository / "snapshots" / commit
    assert open_pipeline("owner/name", KINDS, ACCEPTS).config("unet")["sample_size"] == 8
    assert network_config("owner/name", "unet")["sample_size"] == 8
    (repository / "snapshots" / commit / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "incomplete (unet without weights)" in refused("owner/name")


@pytest.mark.parametrize("name", ["./nowhere", "no such model", "a/b/c"])
def test_neither_folder_nor_name_is_told(name: str) -> None:
    assert refused(name) == f"there is no folder {name}, and it is no name on the hub either (owner/name)"


def test_a_vocabulary_that_needs_another_library_says_so(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (copy / "tokenizer").iterdir():
        file.unlink()
    (copy / "tokenizer" / "spiece.model").write_text("pieces")
    monkeypatch.setattr(folder_module, "find_spec", lambda name: None)
    assert refused(copy).endswith("reading tokenizer/spiece.model needs sentencepiece: pip install sentencepiece")


def test_a_scheduler_is_read_by_its_own_class(copy: Path) -> None:
    """As public folders of Stable Diffusion have it; what a prior takes from it is the same."""
    plain = open_pipeline(str(copy), KINDS, ACCEPTS).load("scheduler")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "PNDMScheduler"]}))
    other = open_pipeline(str(copy), KINDS, ACCEPTS).load("scheduler")
    assert type(other).__name__ == "PNDMScheduler" != type(plain).__name__
    process = DiffusionProcess.from_scheduler(other)
    assert process.parametrization == "v_prediction"
    assert torch.equal(process.alphas_cumprod, plain.alphas_cumprod.double())


@pytest.mark.parametrize("tokens", [16, 256, 4096])
def test_a_flow_is_shifted_by_its_picture_or_by_a_number(tokens: int) -> None:
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    found = DiffusionProcess.from_scheduler(dynamic, tokens).timestep(torch.tensor([0.25]))
    assert float(found) == pytest.approx(float(dynamic.time_shift(calculate_shift(tokens), 1.0, torch.tensor(0.25))))
    solver = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.5)
    for steps, shift in ((FlowMatchEulerDiscreteScheduler(shift=3.0), 3.0), (solver, 2.5)):
        process = DiffusionProcess.from_scheduler(steps, tokens)
        assert isinstance(process, FlowProcess) and process.shift == shift and process.parametrization == "flow"
