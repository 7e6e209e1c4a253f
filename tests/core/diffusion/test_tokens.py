"""Learned words and LoRA as a prior takes them by its options, against diffusers' own textual inversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.contracts import Context
from core.diffusion.tokens import read_tokens
from core.errors import UserError
from plugins.stable_diffusion.prior import StableDiffusion

from tiny_pipeline import LATENT  # isort: skip

WORD, DOG = "<cat-toy>", "a standing corgi dog"
TO_K = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def vectors(count: int, width: int = 16) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def built(folder: Path, **options: Any) -> StableDiffusion:
    return StableDiffusion(StableDiffusion.Config(model=str(folder), text_cache=False, **options), Context())


def written(folder: Path, kind: str) -> Path:
    """One file of each layout, holding a word of two tokens."""
    value = vectors(2)
    if kind == "learned_embeds.bin":
        torch.save({WORD: value}, folder / kind)
    elif kind == f"{WORD}.safetensors":
        save_file({"emb_params": value}, folder / kind)
    else:
        torch.save({"string_to_param": {"*": value}, "name": WORD, "step": 5}, folder / kind)
    return folder / kind


@pytest.mark.parametrize("kind", ["learned_embeds.bin", f"{WORD}.safetensors", "webui.pt"])
def test_words_of_several_tokens_are_embedded_as_diffusers_does(kind: str, folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    file = written(tmp_path, kind)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.load_textual_inversion(str(tmp_path), weight_name=kind, token=WORD)
    text = f"{DOG} with {WORD}"
    wanted, plain = pipeline.encode_prompt(text, "cpu", 1, True, negative_prompt=DOG)
    prior = built(folder, tokens=file)
    told = prior.condition([text, DOG]).text
    torch.testing.assert_close(told, torch.cat([wanted, plain]), rtol=1e-5, atol=1e-5)
    assert float((told[0] - built(folder).condition([text]).text).abs().max()) > 0.01


def test_a_folder_gives_all_its_words(tmp_path: Path) -> None:
    save_file({"<a>": vectors(1)[0], "<b>": vectors(3)}, tmp_path / "one.safetensors")
    torch.save({"<c>": vectors(1)[0]}, tmp_path / "two.bin")
    found = read_tokens(tmp_path)
    assert {word: list(value.shape) for word, value in found.items()} == {"<a>": [1, 16], "<b>": [3, 16], "<c>": [1, 16]}


def test_words_that_cannot_be_taken_are_refused_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    save_file({"<wide>": vectors(1, 768)[0]}, tmp_path / "wide.safetensors")
    save_file({"clip_l": vectors(1), "clip_g": vectors(1, 32)}, tmp_path / "xl.safetensors")
    torch.save([1, 2], tmp_path / "list.bin")
    (tmp_path / "cut.bin").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty").mkdir()
    for name, told in {
        "wide.safetensors": "'<wide>' has 768 numbers; this text tower takes 16",
        "xl.safetensors": "two text towers",
        "list.bin": "holds no learned words",
        "cut.bin": "damaged or of another kind",
        "nowhere.bin": "there is no file",
        "empty": "holds no .safetensors",
    }.items():
        with pytest.raises(UserError, match=told) as caught:
            built(folder, tokens=tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_prior_takes_a_lora_by_its_options(folder: Path, tmp_path: Path) -> None:
    """Denoiser and text tower both, and what is kept on disk of texts depends on it."""
    to_v = "text_encoder.text_model.encoder.layers.0.self_attn.v_proj"
    down, up = vectors(2), vectors(3)[:2].T.contiguous()
    save_file({f"{n}.lora_{k}.weight": v for n in (TO_K, to_v) for k, v in (("A", down.clone()), ("B", up.clone()))}, tmp_path / "l.safetensors")
    plain, changed = built(folder), built(folder, lora=tmp_path / "l.safetensors", lora_scale=2.0)
    layer = TO_K.removeprefix("unet.")
    difference = changed.unet.get_submodule(layer).weight - plain.unet.get_submodule(layer).weight
    torch.testing.assert_close(difference, 2.0 * up @ down, rtol=1e-5, atol=1e-5)
    assert float((changed.condition([DOG]).text - plain.condition([DOG]).text).abs().max()) > 1e-3
    assert changed.text_changes and changed.text_changes != plain.text_changes
    noisy, t = torch.zeros(1, 4, LATENT, LATENT), torch.tensor([500])
    told = plain.condition([DOG])
    assert not torch.allclose(changed.predict(noisy, t, told), plain.predict(noisy, t, told))
    with pytest.raises(UserError, match="lora: there is no file"):
        built(folder, lora=tmp_path / "nowhere.safetensors")
