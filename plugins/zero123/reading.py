"""What a Zero-1-to-3 checkpoint is told by, and what other files are called when they are refused."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from core.diffusion.ldm_layout import CAMERA, CLIP, UNET, VAE
from core.errors import UserError
from core.untrusted import read_tensors

EXPECTED = "expected a Zero-1-to-3 checkpoint (.ckpt or .safetensors in the LDM layout)"
_CHANNELS = 8


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a Zero-1-to-3 checkpoint by their keys in the LDM layout.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, would run code, or holds another model.
    """
    tensors = read_tensors(path, EXPECTED)
    check_layout(tensors, path)
    return tensors


def check_layout(state: dict[str, Tensor], path: Path) -> None:
    """Refuse a state that is no Zero-1-to-3's, saying what it looks like.

    Raises:
        UserError: what it is, and what was expected.
    """
    if found := _other_kind(state):
        raise UserError(f"{path} is {found}; {EXPECTED}")
    for name, prefix in {"UNet": UNET, "autoencoder": VAE, "CLIP image encoder": CLIP}.items():
        if not any(k.startswith(prefix) for k in state):
            raise UserError(f"{path} lacks the {name} ({prefix}*); {EXPECTED}")
    if f"{CAMERA}weight" not in state or f"{CAMERA}bias" not in state:
        raise UserError(f"{path} lacks the camera's projection ({CAMERA}weight, {CAMERA}bias); {EXPECTED}")


def _other_kind(state: dict[str, Tensor]) -> str:
    """What a state is, where it is not a Zero-1-to-3's; empty where nothing says so."""
    if not state:
        return "a file without tensors"
    if any(k.startswith(("lora_", "lora.")) or ".lora_" in k for k in state):
        return "a LoRA, which holds changes to a model only"
    if any(k.startswith("control_model.") for k in state):
        return "a ControlNet"
    if any(k.startswith(("down_blocks.", "encoder.down_blocks.")) for k in state):
        return "a single network of a diffusers folder (give the folder)"
    first = state.get(f"{UNET}input_blocks.0.0.weight")
    if first is None or first.ndim != 4:
        return f"another model (its first tensor is '{next(iter(state))}')"
    text = any(k.startswith(("cond_stage_model.transformer.", "conditioner.")) for k in state)
    text = text or (f"{CAMERA}weight" not in state and not any(k.startswith(CLIP) for k in state)
                    and any(k.startswith("cond_stage_model.") for k in state))  # fmt: skip
    if text:
        return f"a text-conditioned diffusion model with {first.shape[1]} input channels, such as Stable Diffusion"
    if first.shape[1] != _CHANNELS:
        return f"a latent diffusion model with {first.shape[1]} input channels instead of {_CHANNELS}"
    return ""
