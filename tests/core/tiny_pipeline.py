"""A diffusers pipeline folder with random weights, small enough to build in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from plugins.embedded.tokenizer import MAX_LENGTH, train_tokenizer

TEXTS = ["a red ball", "a blue cube, front view", "a standing corgi dog, side view", "a shiny cube, back view"]
LATENT, PICTURE = 8, 16  # sides; the autoencoder halves once


def write_pipeline(folder: Path, camera_dim: int | None = None, prediction_type: str = "v_prediction") -> Path:
    """Fill ``folder`` with vae, text_encoder, tokenizer, unet, scheduler and ``model_index.json``.

    Args:
        camera_dim: length of a vector that the UNet takes beside the timestep, or None for a UNet without.
    """
    tokenizer = train_tokenizer(TEXTS, folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, model in {"vae": _vae(), "text_encoder": _text(tokenizer), "unet": _unet(camera_dim)}.items():
            model.save_pretrained(folder / name)
    scheduler(prediction_type).save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    index |= {k: [None, None] for k in ("safety_checker", "feature_extractor", "image_encoder")}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {"scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def scheduler(prediction_type: str = "v_prediction") -> Any:
    """Stable Diffusion's schedule, spaced from the first timestep to the last."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        clip_sample=False, set_alpha_to_one=True, timestep_spacing="linspace",
    )  # fmt: skip


def _vae() -> Any:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=PICTURE,
        mid_block_add_attention=False, scaling_factor=0.7,
    )  # fmt: skip


def _text(tokenizer: Any) -> Any:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=MAX_LENGTH, pad_token_id=ids["eos_token_id"], **ids,
        )
    )  # fmt: skip


def _unet(camera_dim: int | None) -> Any:
    camera = {} if camera_dim is None else {"class_embed_type": "projection"}
    return UNet2DConditionModel(
        sample_size=LATENT, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
        projection_class_embeddings_input_dim=camera_dim, **camera,
    )  # fmt: skip
