"""Checkpoint files, read without running anything in them, and refused in one sentence where they are no such thing."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.errors import UserError
from plugins.zero123.ldm_layout import CAMERA, CLIP, UNET, VAE

EXPECTED = "expected a Zero-1-to-3 checkpoint (.ckpt or .safetensors in the LDM layout)"
_CHANNELS = 8
_FORBIDDEN = re.compile(
    r"(?:Unsupported global: GLOBAL|Unsupported class|Trying to load unsupported GLOBAL|unrecognized function) (\S+)"
)


class _Inert:
    """Stands for a training callback that a checkpoint names: it holds what was stored and does nothing."""


def _harmless() -> list[Any]:
    """What Stable Diffusion 1.x's and Zero-1-to-3's files name besides tensors: the class of the callback whose state
    they hold, and numpy's scalars (the callback's best score)."""
    scalar: Any = np.float64(0).__reduce__()[0]
    callback = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    kinds = [type(np.dtype(t)) for t in ("f4", "f8", "i4", "i8", "?")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [(_Inert, callback), (_Inert, callback.replace("pytorch_lightning", "lightning.pytorch")), np.dtype, *kinds,
            *((scalar, name) for name in names)]  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a Zero-1-to-3 checkpoint by their keys in the LDM layout.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, would run code, or holds another model.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    start = path.open("rb").read(16)
    if not start:
        raise UserError(f"{path} is empty (0 bytes); {EXPECTED}")
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        content = _unpickled(path, zipped=start[:2] == b"PK")
    elif start[8:9] == b"{":
        content = _safetensors(path)
    else:
        raise UserError(f"{path} is neither a PyTorch file nor a safetensors file; {EXPECTED}")
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    check_layout(tensors, path)
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or damaged ({error}); {EXPECTED}") from error


def _unpickled(path: Path, zipped: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        named = _FORBIDDEN.search(str(error))
        if named is None and not re.search(r"Unsupported|unsupported|blocked|allowed", str(error)):
            raise UserError(f"{path} is truncated or damaged; {EXPECTED}") from error
        what = f"it names {named[1].rstrip('.')}" if named else "it holds more than tensors"
        raise UserError(f"{path} could run code when read ({what}), so it is refused; {EXPECTED}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{path} is truncated or damaged; {EXPECTED}") from error


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
