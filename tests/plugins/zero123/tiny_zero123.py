"""A Zero-1-to-3 with random weights, as a diffusers folder and as an original checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from core.diffusion.novel_view import CameraProjection

WIDTH = 32


def networks() -> dict[str, Any]:
    """The five networks' modules, and the schedule."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=32, in_channels=8, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH, attention_head_dim=8,
        )  # fmt: skip
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(32, 32), layers_per_block=1, latent_channels=4, sample_size=64, scaling_factor=0.18215,
        )  # fmt: skip
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(hidden_size=64, intermediate_size=96, projection_dim=WIDTH, num_hidden_layers=2, num_attention_heads=1,
                             image_size=28, patch_size=14, hidden_act="quick_gelu")
        )  # fmt: skip
        camera = CameraProjection(WIDTH)
        for network in (unet, vae, clip, camera):
            for p in network.parameters():  # the norms and biases too, so that none can be taken for another
                p.data += 0.02 * torch.randn_like(p)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    return {
        "unet": unet.eval(),
        "vae": vae.eval(),
        "image_encoder": clip.eval(),
        "cc_projection": camera,
        "scheduler": scheduler,
    }


def write_folder(folder: Path, parts: dict[str, Any]) -> Path:
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "feature_extractor").mkdir()
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": mean, "image_std": std})
    )
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Zero1to3StableDiffusionPipeline"}))
    return folder
