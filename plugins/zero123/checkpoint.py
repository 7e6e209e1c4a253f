"""Between the original single-file checkpoints of Zero-1-to-3 and folders in diffusers' formats, both ways, exactly.

``python -m plugins.zero123 SOURCE FOLDER`` converts a checkpoint to a folder, and a folder to a checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from core.diffusion import ldm_layout as ldm
from core.diffusion.ldm_configs import clip_config, scheduler_of
from core.diffusion.ldm_networks import fill, part, unet_from, unet_tensors, vae_from, vae_tensors
from core.diffusion.novel_view import CameraProjection
from core.errors import UserError
from plugins.zero123.folder import POSE_KEY, load_folder, pose_mode_of
from plugins.zero123.reading import EXPECTED, read_checkpoint

_FEATURES: dict[str, Any] = {  # OpenAI's CLIP
    "image_processor_type": "CLIPImageProcessor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip


def load_checkpoint(path: Path, ema: bool = True) -> dict[str, Any]:
    """The parts that :class:`~core.diffusion.novel_view.NovelViewPrior` takes, from a file in the LDM layout.

    Args:
        ema: whether the UNet is the moving average, where the file holds one.

    Raises:
        UserError: the file cannot be used (see :func:`~plugins.zero123.reading.read_checkpoint`) or is incomplete.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    state = read_checkpoint(path)
    unet, vae, clip = (part(state, prefix) for prefix in (ldm.UNET, ldm.VAE, ldm.CLIP))
    if ema and (average := _average(state)):
        unet = average
    parts: dict[str, Any] = {"scheduler": scheduler_of(state), "unet": unet_from(unet, path, EXPECTED)}
    parts["vae"] = vae_from(vae, state, path, EXPECTED)
    with torch.device("meta"):
        parts["image_encoder"] = CLIPVisionModelWithProjection(CLIPVisionConfig(**clip_config(clip, path)))
        parts["cc_projection"] = CameraProjection(len(state[f"{ldm.CAMERA}bias"]))
    states = {
        "image_encoder": ldm.clip_here(clip),
        "cc_projection": {f"projection.{k}": v for k, v in part(state, ldm.CAMERA).items()},
    }
    for name, given in states.items():
        fill(parts[name], given, f"the {name.replace('_', ' ')} of {path}", EXPECTED)
    return parts | {"feature_extractor": _features(parts["image_encoder"])}


def convert_checkpoint(source: Path, folder: Path, ema: bool = True) -> Path:
    """Write a checkpoint as a folder: vae, image_encoder, unet, scheduler, feature_extractor, cc_projection.

    Raises:
        UserError: as :func:`load_checkpoint`; or the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already and is not empty")
    parts = load_checkpoint(source, ema)
    for name in ("unet", "vae", "image_encoder", "scheduler", "cc_projection"):
        parts[name].save_pretrained(folder / name)
    size = parts["feature_extractor"]["size"]
    sizes = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    _write(folder / "feature_extractor" / "preprocessor_config.json", _FEATURES | sizes)
    index = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
             "scheduler": ["diffusers", "DDIMScheduler"], "feature_extractor": ["transformers", "CLIPImageProcessor"],
             "image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}  # fmt: skip
    named = {"_class_name": "Zero1to3StableDiffusionPipeline", POSE_KEY: pose_mode_of(source)}
    _write(folder / "model_index.json", named | index)
    return folder


def export_checkpoint(folder: Path, target: Path) -> Path:
    """Write a folder as a single file in the LDM layout: ``.safetensors``, or ``.ckpt`` as PyTorch saves it.

    Raises:
        UserError: the folder lacks a part, or the target's suffix is neither.
    """
    if target.suffix not in (".safetensors", ".ckpt"):
        raise UserError(f"a checkpoint is a .safetensors or a .ckpt, not '{target.name}'")
    state = ldm_state(load_folder(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, target)
    else:
        torch.save({"state_dict": state}, target)
    return target


def ldm_state(parts: dict[str, Any]) -> ldm.State:
    """The networks' tensors, with the schedule's, by their keys in the LDM layout."""
    made = vae_tensors(parts["vae"]) | unet_tensors(parts["unet"])
    made |= {ldm.CLIP + k: v for k, v in ldm.clip_there(parts["image_encoder"].state_dict()).items()}
    made |= {ldm.CAMERA + k: v for k, v in parts["cc_projection"].projection.state_dict().items()}
    scheduler = parts["scheduler"]
    return made | {"betas": scheduler.betas, "alphas_cumprod": scheduler.alphas_cumprod}


def _average(state: dict[str, Tensor]) -> ldm.State:
    """The moving average of the UNet under the UNet's own names; empty where the file holds none."""
    names = {k: ldm.ema_name(k) for k in state if k.startswith(ldm.UNET)}
    if not all(there in state for there in names.values()):
        return {}
    return {k.removeprefix(ldm.UNET): state[there] for k, there in names.items()}


def _features(encoder: Any) -> dict[str, Any]:
    return {"size": encoder.config.image_size, "mean": _FEATURES["image_mean"], "std": _FEATURES["image_std"]}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
