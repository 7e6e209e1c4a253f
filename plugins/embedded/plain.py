"""The plain twin: the same UNet without its camera input, so that any Stable Diffusion code runs it.

Being told no camera adds a constant to the time embedding; folded into that embedding's last bias it needs no input.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from plugins.embedded.camera import no_camera
from plugins.embedded.family import family_folder, part, save_half


@torch.no_grad()
def fold_camera(unet: Any) -> Any:
    """A ``UNet2DConditionModel`` that predicts what ``unet`` does when told no camera; ``unet`` is not changed."""
    from diffusers import UNet2DConditionModel

    config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    config |= {"class_embed_type": None, "projection_class_embeddings_input_dim": None}
    plain: Any = UNet2DConditionModel(**config)
    state = unet.state_dict()
    weight = next(unet.parameters())
    constant = unet.class_embedding(no_camera(1, weight.device).to(weight.dtype))[0]
    state["time_embedding.linear_2.bias"] = state["time_embedding.linear_2.bias"] + constant
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith("class_embedding.")})
    return plain.eval()


def save_pipeline(folder: Path, family: str = "built-in") -> Path:
    """Write a folder that ``diffusers.StableDiffusionPipeline.from_pretrained`` opens (float16 weights)."""
    import diffusers
    from diffusers import UNet2DConditionModel

    source = family_folder(family)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
    unet: Any = UNet2DConditionModel.from_pretrained(part(family, "unet", "embedded-unet"))
    save_half(fold_camera(unet.float()), folder / "unet")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return folder
