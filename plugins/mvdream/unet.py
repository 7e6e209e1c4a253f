"""MVDream's UNet as one of diffusers: from its own folder format, a folder of diffusers, or the original checkpoint.

The camera's two linear layers (``camera_embed``) are diffusers' class embedding of a projected vector; attention across
views adds no weights. ImageDream's further layers (``ip_dim``) have no counterpart and are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.diffusion import ldm_layout as ldm
from core.diffusion.folder import Pipeline
from core.diffusion.ldm_configs import SAMPLE_SIZE
from core.diffusion.ldm_networks import part, unet_from
from core.errors import UserError
from core.untrusted import read_tensors

__all__ = ["CAMERA", "SAMPLE_SIZE", "check_unet", "load_unet"]

CAMERA = 16
"""Numbers that a view's camera is told as."""
HEAD_WIDTH = 64
_OWN = "MultiViewUNetModel"
_EXPECTED = "expected MVDream's weights (a folder, or the .pt of the original release)"


def check_unet(config: dict[str, Any], source: str) -> None:
    """Refuse, by its configuration alone, a UNet that is no MVDream.

    Raises:
        UserError: what it is, and what was expected.
    """
    if config.get("ip_dim"):
        raise UserError(f"{source} is ImageDream, whose layers for the given picture are not read here; {_EXPECTED}")
    told = config.get("camera_dim") if config.get("_class_name") == _OWN else _class_embedding(config)
    if told != CAMERA:
        heard = "no camera" if told is None else f"{told} numbers of a camera instead of {CAMERA}"
        raise UserError(f"{source} is no multi-view model: its UNet is told {heard}; {_EXPECTED}")


def load_unet(pipeline: Pipeline, file: Path | None, dtype: torch.dtype) -> Any:
    """The UNet, in evaluation mode and frozen.

    Args:
        file: an original checkpoint, which then counts.

    Raises:
        UserError: it is damaged, or another model's.
    """
    if file is not None:
        unet = unet_from(_checked(part(read_tensors(file, _EXPECTED), ldm.UNET), file), file, _EXPECTED, HEAD_WIDTH)
    elif (config := pipeline.config("unet")).get("_class_name") == _OWN:
        place = _weights(pipeline.folder / "unet", pipeline.variant)
        unet = unet_from(read_tensors(place, _EXPECTED), place, _EXPECTED, int(config["num_head_channels"]))
        unet.register_to_config(sample_size=int(config["image_size"]))
    else:
        return pipeline.load("unet", dtype)
    for tensor in unet.parameters():
        tensor.data = tensor.data.to(dtype)
    return unet.eval().requires_grad_(False)


def _class_embedding(config: dict[str, Any]) -> int | None:
    if config.get("class_embed_type") != "projection":
        return None
    return config.get("projection_class_embeddings_input_dim")


def _checked(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if not state:
        raise UserError(f"{path} lacks the UNet ({ldm.UNET}*); {_EXPECTED}")
    if any(key.startswith("image_embed.") for key in state):
        raise UserError(f"{path} is ImageDream, whose layers for the given picture are not read here; {_EXPECTED}")
    camera = state.get("camera_embed.0.weight")
    if camera is None:
        raise UserError(f"{path} is no multi-view model: its UNet has no camera_embed; {_EXPECTED}")
    return state


def _weights(folder: Path, variant: str | None) -> Path:
    stem = "diffusion_pytorch_model"
    names = [f"{stem}.{variant}.safetensors"] if variant else []
    names += [f"{stem}.safetensors", f"{stem}.bin"]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds no weights ({' or '.join(names)})")
