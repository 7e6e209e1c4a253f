"""LoRA files in every layout, against the sum written out, and against diffusers with PEFT where that is installed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.diffusion.lora import Lora
from core.errors import UserError

from tiny_pipeline import LATENT  # isort: skip

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
LAYERS = {
    f"unet.{TO_Q}": (16, 16),
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0": (16, 16),
    "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": (128, 16),
    "unet.up_blocks.1.resnets.0.conv1": (8, 24),
    "text_encoder.text_model.encoder.layers.1.self_attn.q_proj": (16, 16),
    "text_encoder.text_model.encoder.layers.0.self_attn.out_proj": (16, 16),
    "text_encoder.text_model.encoder.layers.0.mlp.fc1": (32, 16),
}
RANK, ALPHA = 3, 1.5


def numbers() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    made = {}
    for name, (out, into) in LAYERS.items():
        kernel = (3, 3) if "conv1" in name else ()
        one = (1, 1) if kernel else ()
        down = torch.randn(RANK, into, *kernel, generator=random)
        made[name] = (down, torch.randn(out, RANK, *one, generator=random))
    return made


def peft_file(folder: Path) -> Path:
    """diffusers' present layout: PEFT's names below the part's."""
    state = {}
    for name, (down, up) in numbers().items():
        state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(state, folder / "pytorch_lora_weights.safetensors")
    return folder


def diffusers_file(folder: Path) -> Path:
    """diffusers' older layout, as a pickled state: processors and ``lora_linear_layer``."""
    state = {}
    for name, pair in numbers().items():
        for end, value in zip(("down", "up"), pair, strict=True):
            if ".attn" in name:
                head, _, last = name.replace("to_out.0", "to_out").rpartition(".")
                state[f"{head}.processor.{last}_lora.{end}.weight"] = value
            elif name.startswith("text_encoder"):
                state[f"{name}.lora_linear_layer.{end}.weight"] = value
            else:
                state[f"{name}.lora.{end}.weight"] = value
    torch.save(state, folder / "lora.bin")
    return folder / "lora.bin"


def kohya_file(folder: Path) -> Path:
    """kohya's layout: names with underscores, and an alpha each."""
    state = {}
    for name, (down, up) in numbers().items():
        part, _, rest = name.partition(".")
        key = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part] + rest.replace(".", "_")
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(ALPHA)}
    save_file(state, folder / "kohya.safetensors")
    return folder / "kohya.safetensors"


def networks(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(parts[name]) for name in ("unet", "text_encoder")}


def applied(parts: dict[str, Any], file: Path, scale: float = 1.0) -> dict[str, Any]:
    changed = networks(parts)
    lora = Lora(file, "unet", changed["unet"], changed, scale)
    return {name: lora.add(name, model) for name, model in changed.items()}


@pytest.mark.parametrize(("write", "alpha"), [(peft_file, RANK), (diffusers_file, RANK), (kohya_file, ALPHA)])
def test_every_layout_adds_up_and_down_times_alpha_over_rank(write: Any, alpha: float, parts: Any, tmp_path: Path) -> None:
    changed = applied(parts, write(tmp_path), 0.5)
    seen = 0
    for name, model in changed.items():
        for key, value in model.named_parameters():
            before = parts[name].get_parameter(key)
            full = f"{name}.{'text_model.' if name == 'text_encoder' else ''}{key.removesuffix('.weight')}".replace("text_model.text_model", "text_model")
            if full not in LAYERS:
                assert torch.equal(value, before)
                continue
            down, up = numbers()[full]
            wanted = 0.5 * alpha / RANK * torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).reshape(before.shape)
            torch.testing.assert_close(value - before, wanted, rtol=1e-5, atol=1e-5)
            seen += 1
    assert seen == len(LAYERS)


@pytest.mark.parametrize("write", [peft_file, diffusers_file, kohya_file])
def test_predictions_equal_those_of_the_pipeline_with_load_lora_weights(write: Any, folder: Path, parts: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="diffusers' load_lora_weights needs peft")
    from diffusers import StableDiffusionPipeline

    file = write(tmp_path)
    where = {"weight_name": "pytorch_lora_weights.safetensors"} if file.is_dir() else {"weight_name": file.name}
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.load_lora_weights(str(file if file.is_dir() else file.parent), **where)
    changed = applied(parts, file)
    random = torch.Generator().manual_seed(1)
    noisy, t = torch.randn(2, 4, LATENT, LATENT, generator=random), torch.tensor([40, 900])
    ids = torch.randint(0, 20, (2, 8), generator=random)
    with torch.no_grad():
        told, wanted_told = changed["text_encoder"](ids).last_hidden_state, pipeline.text_encoder(ids).last_hidden_state
        torch.testing.assert_close(told, wanted_told, rtol=1e-4, atol=1e-4)
        found = changed["unet"](noisy, t, encoder_hidden_states=told).sample
        torch.testing.assert_close(found, pipeline.unet(noisy, t, encoder_hidden_states=told).sample, rtol=1e-4, atol=1e-4)
        plain = parts["unet"](noisy, t, encoder_hidden_states=told).sample
    assert float((found - plain).abs().max()) > 0.01


def test_peft_folders_say_their_alpha_beside_the_weights(parts: Any, tmp_path: Path) -> None:
    down, up = numbers()[f"unet.{TO_Q}"]
    state = {f"base_model.model.{TO_Q}.lora_A.weight": down, f"base_model.model.{TO_Q}.lora_B.weight": up}
    save_file(state, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 6.0}))
    changed = applied(parts, tmp_path)["unet"].get_submodule(TO_Q).weight - parts["unet"].get_submodule(TO_Q).weight
    torch.testing.assert_close(changed, 6.0 / RANK * up @ down, rtol=1e-5, atol=1e-5)


def save(folder: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, folder / "x.safetensors")
    return folder / "x.safetensors"


A, B = torch.zeros(2, 16), torch.zeros(16, 2)
WRONG = {
    "other-layers": ({"unet.elsewhere.to_q.lora_A.weight": A, "unet.elsewhere.to_q.lora_B.weight": B}, "another model: 1 of its 1 layers of unet"),
    "other-width": ({f"unet.{TO_Q}.lora_A.weight": torch.zeros(2, 320), f"unet.{TO_Q}.lora_B.weight": B}, r"is \[16, 16\] here, and \[16, 320\] in the file"),
    "other-parts": ({"text_encoder_2.x.q_proj.lora_A.weight": A, "text_encoder_2.x.q_proj.lora_B.weight": B}, "it changes text_encoder_2, which this one lacks"),
    "no-lora": ({"unet.weight": A}, "holds no LoRA weights"),
    "half": ({f"unet.{TO_Q}.lora_A.weight": A}, "holds no LoRA weights"),
    "loha": ({"lora_unet_x.hada_w1_a": A}, "holds LoHa weights; only plain LoRA"),
}  # fmt: skip


@pytest.mark.parametrize(("state", "told"), WRONG.values(), ids=WRONG)
def test_files_of_another_model_are_refused(state: dict[str, Tensor], told: str, parts: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as caught:
        applied(parts, save(tmp_path, state))
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_damaged_are_refused(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        applied(parts, tmp_path / "nowhere.safetensors")
    with pytest.raises(UserError, match="holds no pytorch_lora_weights.safetensors"):
        applied(parts, tmp_path)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(UserError, match="cannot be read as a LoRA"):
        applied(parts, tmp_path / "cut.safetensors")
