"""A family on disk is what diffusers' own pipeline opens, and both draw the same picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core.errors import UserError
from plugins.unclip.draw import SamplingConfig, from_text
from plugins.unclip.folder import Family, load_family, save_family


def test_diffusers_opens_it_and_draws_the_same(family: Family, tmp_path: Path) -> None:
    from diffusers import UnCLIPPipeline

    save_family(family, tmp_path)
    pipeline = UnCLIPPipeline.from_pretrained(tmp_path, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    settings = {"prior_num_inference_steps": 5, "decoder_num_inference_steps": 6, "super_res_num_inference_steps": 4}
    scales = {"prior_guidance_scale": 4.0, "decoder_guidance_scale": 3.0}
    theirs = pipeline("a red mug", **settings, **scales, generator=torch.Generator().manual_seed(3), output_type="np").images
    o = SamplingConfig(prior_steps=5, decoder_steps=6, upsampler_steps=4, prior_scale=4.0, decoder_scale=3.0, candidates=1)
    mine = from_text(load_family(tmp_path), o, ["a red mug"], torch.Generator().manual_seed(3))
    mine = (mine.movedim(1, -1) * 0.5 + 0.5).clamp(0, 1)
    assert theirs.shape == (1, 16, 16, 3) and theirs.std() > 0.05
    torch.testing.assert_close(mine, torch.from_numpy(theirs), atol=1e-4, rtol=0)


def test_what_is_saved_is_what_is_opened(family: Family, tmp_path: Path) -> None:
    opened = load_family(save_family(family, tmp_path))
    for name, network in family.networks.items():
        theirs = opened.networks[name].state_dict()
        for key, value in network.state_dict().items():
            torch.testing.assert_close(theirs[key], value, atol=2e-3, rtol=2e-3)  # kept in half precision
    rgb = torch.rand(2, 20, 20, 3)
    torch.testing.assert_close(opened.tower.see(rgb), family.tower.see(rgb), atol=1e-2, rtol=1e-2)
    assert opened.schedulers["prior_scheduler"].config.clip_sample_range == 10.0
    assert opened.tower.words == family.tower.words and "mug" in opened.tower.words


def test_what_is_no_family_is_refused(family: Family, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        load_family(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds neither prior, decoder nor upsampler"):
        load_family(tmp_path)
    (tmp_path / "decoder.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"convert them first: python -m plugins\.unclip"):
        load_family(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(UserError, match="holds a StableDiffusionPipeline; expected an unCLIP family"):
        load_family(tmp_path)
    folder = save_family(family, tmp_path / "good")
    (folder / "decoder" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="decoder cannot be opened as UNet2DConditionModel"):
        load_family(folder)
