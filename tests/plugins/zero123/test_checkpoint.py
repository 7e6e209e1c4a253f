"""Original checkpoints and diffusers folders: the same tensors both ways, the same prediction, and what is refused."""

from __future__ import annotations

import json
import math
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file

from core.contracts import Context
from core.diffusion.ldm_layout import ema_name
from core.errors import UserError
from core.testing import check_component
from core.types import Cameras, Views
from plugins.zero123.checkpoint import convert_checkpoint, export_checkpoint, ldm_state, load_checkpoint
from plugins.zero123.folder import load_folder, pose_mode_of
from plugins.zero123.reading import read_checkpoint
from plugins.zero123.zero123 import Zero123

sys.path.insert(0, str(Path(__file__).parent))
from tiny_zero123 import networks, write_folder  # noqa: E402


@pytest.fixture(scope="module")
def parts():
    return networks()


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("hf") / "zero123-xl", parts)


@pytest.fixture(scope="module")
def state(parts):
    return ldm_state(parts)


@pytest.fixture(scope="module")
def single(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("single") / "zero123-xl.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def _equal(mine, theirs):
    assert set(mine) == set(theirs)
    for key, value in mine.items():
        assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key]), key


def test_names_are_those_that_diffusers_reads(parts, state):
    """Its own reader of the original layout is the judge of every name of the UNet and the autoencoder."""
    unet = convert_ldm_unet_checkpoint(dict(state), dict(parts["unet"].config))
    _equal(unet, parts["unet"].state_dict())
    vae = convert_ldm_vae_checkpoint({k: v.clone() for k, v in state.items()}, dict(parts["vae"].config))
    _equal(vae, parts["vae"].state_dict())


def test_names_of_the_published_files(state):
    known = ["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
             "model.diffusion_model.input_blocks.2.0.op.weight", "model.diffusion_model.middle_block.1.proj_in.weight",
             "model.diffusion_model.output_blocks.1.1.conv.weight", "model.diffusion_model.out.2.bias",
             "first_stage_model.encoder.mid.attn_1.q.weight", "first_stage_model.decoder.up.1.upsample.conv.weight",
             "first_stage_model.quant_conv.weight", "cond_stage_model.model.visual.transformer.resblocks.1.attn.in_proj_weight",
             "cond_stage_model.model.visual.class_embedding", "cond_stage_model.model.visual.proj", "cc_projection.weight"]  # fmt: skip
    assert set(known) <= set(state)
    assert state["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    assert state["cond_stage_model.model.visual.proj"].shape == (64, 32)
    assert ema_name("model.diffusion_model.input_blocks.0.0.weight") == "model_ema.diffusion_modelinput_blocks00weight"


def _openai_vision(state, pictures):
    """OpenAI's CLIP vision tower as published, on its own tensors."""
    s = {k.removeprefix("cond_stage_model.model.visual."): v for k, v in state.items()}
    norm = torch.nn.functional.layer_norm
    x = torch.nn.functional.conv2d(pictures, s["conv1.weight"], stride=14).flatten(2).transpose(1, 2)
    x = torch.cat([s["class_embedding"].expand(len(x), 1, -1), x], 1) + s["positional_embedding"]
    x = norm(x, x.shape[-1:], s["ln_pre.weight"], s["ln_pre.bias"])
    for n in range(2):
        b = {k.removeprefix(f"transformer.resblocks.{n}."): v for k, v in s.items()}
        attention = torch.nn.MultiheadAttention(64, 1, batch_first=True)
        attention.load_state_dict({k.removeprefix("attn."): v for k, v in b.items() if k.startswith("attn.")})
        y = norm(x, x.shape[-1:], b["ln_1.weight"], b["ln_1.bias"])
        x = x + attention(y, y, y, need_weights=False)[0]
        y = norm(x, x.shape[-1:], b["ln_2.weight"], b["ln_2.bias"]) @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"]
        x = x + (y * torch.sigmoid(1.702 * y)) @ b["mlp.c_proj.weight"].T + b["mlp.c_proj.bias"]
    return norm(x[:, 0], x.shape[-1:], s["ln_post.weight"], s["ln_post.bias"]) @ s["proj"]


def test_the_image_encoder_computes_what_openais_does(state, single):
    pictures = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine = load_checkpoint(single)["image_encoder"](pixel_values=pictures).image_embeds
        assert torch.allclose(mine, _openai_vision(state, pictures), atol=1e-5)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_there_and_back_is_the_same_bit_for_bit(folder, state, tmp_path, suffix):
    file = export_checkpoint(folder, tmp_path / f"zero123-xl.{suffix}")
    read = load_file(file) if suffix == "safetensors" else torch.load(file, weights_only=True)["state_dict"]
    _equal({k: v.contiguous() for k, v in read.items()}, state)
    again = convert_checkpoint(file, tmp_path / "folder")
    mine, theirs = load_folder(again), load_folder(folder)
    for name in ("unet", "vae", "image_encoder", "cc_projection"):
        _equal(mine[name].state_dict(), theirs[name].state_dict())
    for name in ("unet", "vae"):
        a, b = dict(mine[name].config), dict(theirs[name].config)
        for key in ("_name_or_path", "_diffusers_version", "down_block_types", "up_block_types", "block_out_channels"):
            x, y = a.pop(key, None), b.pop(key, None)
            assert key.startswith("_") or list(x) == list(y)
        assert a == b
    assert torch.equal(mine["scheduler"].alphas_cumprod, theirs["scheduler"].alphas_cumprod)
    _equal(load_file(export_checkpoint(again, tmp_path / "back.safetensors")), state)


def test_halves_stay_halves(state, tmp_path):
    halves = {k: v.half().contiguous() if v.is_floating_point() and "." in k else v for k, v in state.items()}
    save_file(halves, tmp_path / "h.safetensors")
    assert load_checkpoint(tmp_path / "h.safetensors")["unet"].dtype == torch.float16


def _views(size=64):
    rgb = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, size, size, 1)
    mask[:, 10:50, 10:50] = 1
    return Views(rgb, mask, Cameras.turntable(torch.zeros(1), 0.3, size))


def _prediction(model, **options):
    prior = Zero123(Zero123.Config(model=str(model), precision="float32", **options), Context())
    random = torch.Generator().manual_seed(2)
    noisy, t = torch.randn(2, *prior.space(prior.options, prior.context), generator=random), torch.tensor([500, 20])
    wanted = Cameras.turntable(torch.tensor([0.4, 2.0]), 0.1, 64)
    with torch.no_grad():
        told = prior.predict(noisy, t, prior.condition(["", ""], wanted, _views()))
        assert not torch.allclose(told, prior.predict(noisy, t, prior.condition(["", ""])))
    return told


def test_both_give_the_same_prediction(folder, single):
    assert (_prediction(folder) - _prediction(single)).abs().max() < 1e-5


def test_the_size_can_be_changed(folder):
    assert _prediction(folder, image_size=32).shape == (2, 4, 16, 16)
    with pytest.raises(UserError, match="multiple of 2"):
        _prediction(folder, image_size=33)


def test_the_moving_average_is_found_by_its_mangled_names(parts, state, tmp_path):
    average = {ema_name(k): v + 1 for k, v in state.items() if k.startswith("model.diffusion_model.")}
    averages = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    torch.save({"state_dict": state | average | averages, "epoch": 3}, tmp_path / "105000.ckpt")
    raw, mean = (load_checkpoint(tmp_path / "105000.ckpt", ema)["unet"].state_dict() for ema in (False, True))
    _equal(raw, parts["unet"].state_dict())
    _equal(mean, {k: v + 1 for k, v in raw.items()})


def test_a_training_checkpoint_with_its_callbacks_is_read(state, tmp_path, monkeypatch):
    """What PyTorch Lightning 1.4 wrote: the callback's class as a key, and its best score as a numpy number."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    content = {"epoch": 1, "callbacks": {callback: {"best_model_score": np.float64(0.1), "monitor": "val/loss"}},
               "state_dict": state, "optimizer_states": [{"state": {}}], "lr_schedulers": []}  # fmt: skip
    torch.save(content, tmp_path / "a.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)  # the class need not exist to read the file
    _equal(read_checkpoint(tmp_path / "a.ckpt"), state)


def test_pose_mode(folder, state, tmp_path):
    assert pose_mode_of(folder) == "relative-radius"
    for name in ("stable_zero123.ckpt", "stable-zero123.ckpt", "Stable-Zero123"):
        assert pose_mode_of(Path(name)) == "absolute-polar"
    for name in ("105000.ckpt", "zero123-xl.ckpt"):
        assert pose_mode_of(Path(name)) == "relative-radius"
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "stable_zero123.safetensors")
    made = convert_checkpoint(tmp_path / "stable_zero123.safetensors", tmp_path / "any")
    assert pose_mode_of(made) == "absolute-polar"  # noted in the folder, whatever its name
    given = _prediction(made) - _prediction(made, pose_mode="relative-radius")
    assert given.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "key", "suffix"),
    [("clip_camera_projection", "proj", "bin"), ("cc_projection", "projection", "safetensors")],
)
def test_published_names_of_the_projection(folder, parts, tmp_path, name, key, suffix):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "cc_projection")
    (copy / name).mkdir()
    layer = {f"{key}.{k}": v for k, v in parts["cc_projection"].projection.state_dict().items()}
    if suffix == "bin":
        torch.save(layer, copy / name / "diffusion_pytorch_model.bin")
    else:
        save_file(layer, copy / name / "diffusion_pytorch_model.safetensors")
    _equal(load_folder(copy)["cc_projection"].state_dict(), parts["cc_projection"].state_dict())


class _Runs:
    def __reduce__(self):
        return print, ("it ran",)


def _refused(tmp_path, name, content, sentence):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=sentence) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and "expected a Zero-1-to-3 checkpoint" in str(caught.value)


def test_refused_files(state, single, tmp_path, capfd):
    torch.save({"state_dict": state}, tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    _refused(tmp_path, "a.ckpt", {"state_dict": state, "extra": _Runs()}, r"could run code .*names \S*print")
    _refused(tmp_path, "b.ckpt", pickle.dumps({"state_dict": _Runs()}, protocol=2), "could run code")
    assert "it ran" not in capfd.readouterr().out
    _refused(tmp_path, "c.ckpt", whole[: len(whole) // 2], "truncated or damaged")
    _refused(tmp_path, "d.safetensors", single.read_bytes()[:-100], "truncated or damaged")
    _refused(tmp_path, "e.safetensors", single.read_bytes()[:60], "truncated or damaged")
    _refused(tmp_path, "f.ckpt", b"a red mug, in plain words", "neither a PyTorch file nor a safetensors file")
    _refused(tmp_path, "g.ckpt", b"", "0 bytes")
    with zipfile.ZipFile(tmp_path / "h.ckpt", "w") as archive:
        archive.writestr("a.txt", "text")
    _refused(tmp_path, "h.ckpt", (tmp_path / "h.ckpt").read_bytes(), "truncated or damaged|not a PyTorch")
    with pytest.raises(UserError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_refused_models(state, parts, tmp_path):
    unet = {k: v for k, v in state.items() if k.startswith("model.")}
    first = "model.diffusion_model.input_blocks.0.0.weight"
    plain = unet | {first: state[first][:, :4].clone()}
    text = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)}
    lacking = {k: v for k, v in state.items() if not k.startswith("cc_projection")}
    cases = {
        "text-conditioned diffusion model with 4 input channels": plain | text,
        "text-conditioned diffusion model with 8 input channels": unet | text,
        "latent diffusion model with 4 input channels instead of 8": state | {first: state[first][:, :4].clone()},
        "lacks the camera's projection": lacking,
        "lacks the autoencoder": {k: v for k, v in state.items() if not k.startswith("first_stage")},
        "is a ControlNet": {"control_model.input_blocks.0.0.weight": torch.zeros(1)},
        "is a LoRA": {"lora_unet_down.alpha": torch.zeros(1)},
        "single network of a diffusers folder": dict(parts["unet"].state_dict()),
        "another model .its first tensor is 'layer.weight'": {"layer.weight": torch.zeros(2)},
        "a file without tensors": {"epoch": 3},
    }
    for n, (sentence, content) in enumerate(cases.items()):
        _refused(tmp_path, f"{n}.ckpt", {"state_dict": content}, sentence)


def test_incomplete_networks_are_named(state, tmp_path):
    for n, (gone, sentence) in enumerate({
        "model.diffusion_model.output_blocks.1.0.out_layers.3.bias": "the unet of .* lacks 1 tensors, up_blocks.0.resnets.1.conv2.bias",
        "model.diffusion_model.out.2.weight": "incomplete or of an unknown build: out.2.weight",
        "cond_stage_model.model.visual.ln_post.bias": "the image encoder of .* lacks 1 tensors",
    }.items()):  # fmt: skip
        save_file({k: v.contiguous() for k, v in state.items() if k != gone}, tmp_path / f"{n}.safetensors")
        with pytest.raises(UserError, match=sentence):
            load_checkpoint(tmp_path / f"{n}.safetensors")


def test_refused_folders(folder, tmp_path):
    (tmp_path / "sd" / "vae").mkdir(parents=True)
    (tmp_path / "sd" / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        UserError, match="holds a StableDiffusionPipeline: it lacks image_encoder, unet, scheduler, cc_projection or"
    ):
        load_folder(tmp_path / "sd")
    with pytest.raises(UserError, match="is not empty"):
        convert_checkpoint(tmp_path / "x.ckpt", folder)
    with pytest.raises(UserError, match=r"\.safetensors or a \.ckpt"):
        export_checkpoint(folder, tmp_path / "a.bin")


def test_contract(folder):
    assert len(check_component("prior", "zero123", options={"model": str(folder)})) >= 8


def test_one_token_of_cross_attention_is_a_bias(parts):
    """With a single token the softmax is 1, whatever the queries are: to_out(to_v(token)) at every place."""
    attention = parts["unet"].down_blocks[0].attentions[0].transformer_blocks[0].attn2
    random = torch.Generator().manual_seed(3)
    token = torch.randn(2, 1, 32, generator=random)
    with torch.no_grad():
        one, other = (attention(torch.randn(2, 7, 32, generator=random), encoder_hidden_states=token) for _ in range(2))
        bias = attention.to_out[0](attention.to_v(token))
    assert torch.allclose(one, other, atol=1e-6) and torch.allclose(one, bias.expand_as(one), atol=1e-6)
    assert math.isfinite(float(one.sum()))
