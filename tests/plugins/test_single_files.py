"""Stable Diffusion and SDXL from one file in the original layout: the same weights and answers as from a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.contracts import Context
from core.diffusion import ldm_layout as ldm
from core.diffusion.ldm_networks import unet_tensors, vae_tensors
from core.diffusion.single_file import as_folder
from core.discovery import get_registry
from core.errors import UserError
from core.testing.check import make_options

sys.path.insert(0, str(Path(__file__).parent))
from tiny_priors import PEERS  # noqa: E402

OPEN_CLIP = {
    "text_model.encoder.layers.": "transformer.resblocks.", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", ".self_attn.": ".attn.", "text_model.final_layer_norm": "ln_final",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
}  # fmt: skip
"""Names in OpenCLIP's files of what transformers calls otherwise; q, k and v are one tensor there."""


def open_clip(tower: Any) -> dict[str, Tensor]:
    """The second text tower of SDXL as its files have it."""
    found, parts = {}, {}
    for key, value in tower.state_dict().items():
        name = key
        for here, there in OPEN_CLIP.items():
            name = name.replace(here, there)
        if key == "text_projection.weight":
            found["text_projection"] = value.T
        elif "_proj." in name and "out_proj" not in name and ".attn." in name:
            block, _, last = name.rpartition(".attn.")
            parts.setdefault((block, last.partition(".")[2]), {})[last[0]] = value
        else:
            found[name] = value
    for (block, kind), qkv in parts.items():
        found[f"{block}.attn.in_proj_{kind}"] = torch.cat([qkv[k] for k in "qkv"])
    return found


def single(pipeline: Any) -> dict[str, Tensor]:
    """A pipeline's tensors in the layout of the original code."""
    unet = dict(pipeline.unet.state_dict())
    more = {k: unet.pop(k) for k in list(unet) if k.startswith("add_embedding")}
    plain = pipeline.unet
    if more:  # the core's table of names is for networks without them
        labels = {"linear_1": "label_emb.0.0", "linear_2": "label_emb.0.2"}
        more = {f"{ldm.UNET}{labels[k.split('.')[1]]}.{k.split('.')[2]}": v for k, v in more.items()}
        plain.add_embedding = None
    state = more | unet_tensors(plain) | vae_tensors(pipeline.vae)
    two = hasattr(pipeline, "text_encoder_2")
    first = "conditioner.embedders.0.transformer." if two else "cond_stage_model.transformer."
    state |= {f"{first}text_model.{k}": v for k, v in pipeline.text_encoder.state_dict().items()}
    if two:
        state |= {f"conditioner.embedders.1.model.{k}": v for k, v in open_clip(pipeline.text_encoder_2).items()}
    return {k: v.contiguous() for k, v in state.items()}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    peer, folder = PEERS[request.param], tmp_path_factory.mktemp(request.param)
    pipeline = peer.build(folder)
    file = tmp_path_factory.mktemp("files") / f"{request.param}.safetensors"
    save_file(single(pipeline), file)
    return peer, folder, file


def prior(peer: Any, **options: Any) -> Any:
    entry = get_registry().find("prior", peer.prior)
    kind = entry.load()
    return kind(make_options(entry, kind, get_registry(), peer.options | options), Context())


@torch.no_grad()
def test_a_file_answers_as_its_folder_does(made: tuple[Any, Path, Path]) -> None:
    peer, folder, file = made
    one, other = prior(peer, model=str(file), structure=str(folder)), prior(peer, model=str(folder))
    assert one.latent_shape == other.latent_shape == one.space(one.options, Context())
    for name in ("unet", "vae"):
        ours, theirs = (getattr(p, name).state_dict() for p in (one, other))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    told, wanted = one.condition(["a red mug"]), other.condition(["a red mug"])
    assert torch.equal(told.text, wanted.text) and told.text.abs().sum() > 0
    x, t = torch.randn(1, *one.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    assert torch.equal(one.answer(x, t, told), other.answer(x, t, wanted))


def test_it_is_converted_once(made: tuple[Any, Path, Path]) -> None:
    peer, folder, file = made
    pipelines = get_registry().find("prior", peer.prior).load().pipelines
    first = as_folder(str(file), str(folder), pipelines)
    before = {f: f.stat().st_mtime_ns for f in first.rglob("*")}
    assert as_folder(str(file), str(folder), pipelines) == first
    assert {f: f.stat().st_mtime_ns for f in first.rglob("*")} == before
    assert not list(first.parent.glob("*.tmp"))


def test_a_ckpt_with_a_callback_is_read_and_one_with_code_is_not(
    made: tuple[Any, Path, Path], tmp_path: Path, cache: Path
) -> None:
    from safetensors.torch import load_file

    peer, folder, file = made
    state = load_file(file)
    torch.save({"state_dict": state, "epoch": 3, "global_step": 7}, tmp_path / "model.ckpt")
    found = as_folder(str(tmp_path / "model.ckpt"), str(folder), (peer.pipeline,))
    assert torch.equal(
        load_file(next((found / "unet").glob("*.safetensors")))["conv_in.weight"],
        state[f"{ldm.UNET}input_blocks.0.0.weight"],
    )
    torch.save({"state_dict": state, "hook": Path.exists}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match="could run code when read"):
        as_folder(str(tmp_path / "bad.ckpt"), str(folder), (peer.pipeline,))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no structure", "set structure to a folder"),
        ("other tensors", "holds no denoiser (its first tensor is lora_unet)"),
        ("cut short", "is truncated or damaged"),
        ("another network", "does not fit"),
        ("no such format", "is a file; this prior reads folders"),
    ],
)
def test_files_that_are_refused(made: tuple[Any, Path, Path], tmp_path: Path, what: str, said: str) -> None:
    peer, folder, file = made
    pipelines, structure, one = (peer.pipeline,), str(folder), tmp_path / "one.safetensors"
    if what == "other tensors":
        save_file({"lora_unet": torch.zeros(1)}, one)
    elif what == "another network":
        save_file({f"{ldm.UNET}input_blocks.0.0.weight": torch.zeros(5, 5)}, one)
    else:
        one.write_bytes(file.read_bytes()[: 3000 if what == "cut short" else None])
    with pytest.raises(UserError) as caught:
        if what == "no such format":
            registry = get_registry()
            entry = registry.find("prior", "deepfloyd-if")
            kind = entry.load()
            kind(make_options(entry, kind, registry, {"model": str(one), "structure": structure}), Context())
        as_folder(str(one), None if what == "no structure" else structure, pipelines)
    assert said in str(caught.value) and str(one) in str(caught.value)
