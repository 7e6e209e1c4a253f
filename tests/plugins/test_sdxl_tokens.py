"""Words learned for both text towers of Stable Diffusion XL, against diffusers' own textual inversion."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.contracts import Context
from core.errors import UserError
from plugins.sdxl.prior import StableDiffusionXL

sys.path[:0] = [str(Path(__file__).parents[1] / "core"), str(Path(__file__).parent)]
from tiny_priors import PEERS  # noqa: E402

TEXT = "a standing corgi dog with toy-cat"


def vectors(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count + width))


def built(folder: Path, **options: Any) -> StableDiffusionXL:
    return StableDiffusionXL(StableDiffusionXL.Config(model=str(folder), text_cache=False, **options), Context())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("sdxl")
    return folder, PEERS["sdxl"].build(folder)


@pytest.mark.parametrize("names", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_words_are_heard_by_both_towers_as_diffusers_does(
    model: tuple[Path, Any], names: tuple[str, str], tmp_path: Path
) -> None:
    from diffusers import StableDiffusionXLPipeline

    folder, pair = model[0], (vectors(2, 16), vectors(2, 24))
    save_file(dict(zip(names, pair, strict=True)), tmp_path / "toy-cat.safetensors")
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    for value, end in zip(pair, ("", "_2"), strict=True):
        tower, tokenizer = getattr(pipeline, f"text_encoder{end}"), getattr(pipeline, f"tokenizer{end}")
        pipeline.load_textual_inversion({"toy-cat": value}, token="toy-cat", text_encoder=tower, tokenizer=tokenizer)
    wanted, _, pooled, _ = pipeline.encode_prompt(TEXT, device="cpu", do_classifier_free_guidance=False)
    prior = built(folder, tokens=tmp_path, free_text=True)
    told = prior.condition([TEXT])
    torch.testing.assert_close(told.text, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(told.pooled, pooled, rtol=1e-5, atol=1e-5)
    plain = built(folder)
    assert float((told.text - plain.condition([TEXT]).text).abs().max()) > 0.01
    prior.forget_texts()  # the towers were dropped: they are loaded and taught again
    torch.testing.assert_close(prior.condition([TEXT]).text, told.text)
    assert prior.text_changes != plain.text_changes


def test_words_that_cannot_be_taken_are_refused_in_a_sentence(model: tuple[Path, Any], tmp_path: Path) -> None:
    save_file({"emb_params": vectors(1, 16)}, tmp_path / "one.safetensors")
    save_file({"clip_l": vectors(1, 16), "clip_g": vectors(2, 24)}, tmp_path / "uneven.safetensors")
    for name, told in {
        "one": "holds no words for two text towers",
        "uneven": "1 tokens of one text tower and 2 of the other",
    }.items():
        with pytest.raises(UserError, match=told):
            built(model[0], tokens=tmp_path / f"{name}.safetensors")
    save_file({"clip_l": vectors(1, 768), "clip_g": vectors(1, 24)}, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="'wide' has 768 numbers; this text tower takes 16"):
        built(model[0], tokens=tmp_path / "wide.safetensors").condition([TEXT])
