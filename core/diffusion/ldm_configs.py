"""The networks' configurations from the shapes of a checkpoint's tensors.

What shapes do not tell has Stable Diffusion's published value: 8 heads of attention (of 2.x: as many as are 64 wide),
32 groups of normalisation, latents of 32 x 32 (256 pixels), a latent scale of 0.18215; CLIP's heads are 64 wide.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.diffusion.ldm_layout import State
from core.errors import UserError

HEADS, CLIP_HEAD_WIDTH, SAMPLE_SIZE, SCALE = 8, 64, 32, 0.18215


def unet_config(state: State, path: Path, head_width: int | None = None) -> dict[str, Any]:
    """Of ``UNet2DConditionModel``, from ``model.diffusion_model.*`` without that prefix.

    Args:
        head_width: channels of one attention head; None means 8 heads of any width.

    A ``camera_embed`` (MVDream) becomes the class embedding, which diffusers too adds to the timestep's.
    """
    downs = sorted(_numbers(state, r"input_blocks\.(\d+)\.0\.op\.weight"))
    count = 1 + max(_numbers(state, r"input_blocks\.(\d+)\."), default=0)
    levels = len(downs) + 1
    layers = (count - 1 - len(downs)) // levels
    if layers < 1 or count != 1 + levels * layers + len(downs):
        raise _Unknown(path, "UNet")
    first = [1 + b * (layers + 1) for b in range(levels)]
    attended = [f"input_blocks.{n}.1.norm.weight" in state for n in first]
    channels = [_shape(state, f"input_blocks.{n}.0.out_layers.3.weight", path)[0] for n in first]
    mixing = _shape(state, "middle_block.1.proj_in.weight", path)
    depth = 1 + max(_numbers(state, r"middle_block\.1\.transformer_blocks\.(\d+)\."), default=0)
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)]
    told: dict[str, Any] = {}
    if "camera_embed.0.weight" in state:
        width = _shape(state, "camera_embed.0.weight", path)[1]
        told = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": width}
    # What diffusers calls a head's width here is the number of heads.
    heads: int | list[int] = HEADS if head_width is None else [max(1, c // head_width) for c in channels]
    return told | {
        "in_channels": _shape(state, "input_blocks.0.0.weight", path)[1],
        "out_channels": _shape(state, "out.2.weight", path)[0],
        "block_out_channels": channels, "layers_per_block": layers, "sample_size": SAMPLE_SIZE,
        "down_block_types": down, "up_block_types": up, "attention_head_dim": heads,
        "cross_attention_dim": _shape(state, "middle_block.1.transformer_blocks.0.attn2.to_k.weight", path)[1],
        "transformer_layers_per_block": depth, "use_linear_projection": len(mixing) == 2,
    }  # fmt: skip


def vae_config(state: State, whole: State, path: Path) -> dict[str, Any]:
    """Of ``AutoencoderKL``, from ``first_stage_model.*`` without that prefix, and the whole state."""
    levels = 1 + max(_numbers(state, r"encoder\.down\.(\d+)\."), default=0)
    layers = 1 + max(_numbers(state, r"encoder\.down\.0\.block\.(\d+)\."), default=-1)
    channels = [_shape(state, f"encoder.down.{n}.block.0.conv2.weight", path)[0] for n in range(levels)]
    scale = whole.get("scale_factor")
    return {
        "in_channels": _shape(state, "encoder.conv_in.weight", path)[1],
        "out_channels": _shape(state, "decoder.conv_out.weight", path)[0],
        "latent_channels": _shape(state, "decoder.conv_in.weight", path)[1],
        "block_out_channels": channels, "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in state,
        "scaling_factor": SCALE if scale is None else float(scale), "sample_size": SAMPLE_SIZE * 2 ** (levels - 1),
    }  # fmt: skip


def clip_config(state: State, path: Path) -> dict[str, Any]:
    """Of ``CLIPVisionConfig``, from OpenAI's vision tower without its prefix."""
    width, _, patch, _ = _shape(state, "conv1.weight", path)
    places = _shape(state, "positional_embedding", path)[0]
    return {
        "hidden_size": width, "patch_size": patch, "image_size": patch * round((places - 1) ** 0.5),
        "projection_dim": _shape(state, "proj", path)[1], "num_attention_heads": max(1, width // CLIP_HEAD_WIDTH),
        "intermediate_size": _shape(state, "transformer.resblocks.0.mlp.c_fc.weight", path)[0],
        "num_hidden_layers": 1 + max(_numbers(state, r"transformer\.resblocks\.(\d+)\.")), "hidden_act": "quick_gelu",
    }  # fmt: skip


def scheduler_of(state: State) -> Any:
    """DDIM over the checkpoint's ``betas``; Stable Diffusion 1.x's schedule where it holds none."""
    from diffusers import DDIMScheduler

    kept: dict[str, Any] = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    betas = state.get("betas")
    ends = (0.00085, 0.012) if betas is None else (float(betas[0]), float(betas[-1]))
    count = 1000 if betas is None else len(betas)
    if betas is None or _is_scaled_linear(betas):
        ends = (round(ends[0], 7), round(ends[1], 7))
        kept |= {"beta_start": ends[0], "beta_end": ends[1], "beta_schedule": "scaled_linear"}
    else:
        kept |= {"trained_betas": betas.double().tolist()}
    return DDIMScheduler(num_train_timesteps=count, **kept)


def _is_scaled_linear(betas: Tensor) -> bool:
    line = torch.linspace(float(betas[0]) ** 0.5, float(betas[-1]) ** 0.5, len(betas), dtype=torch.float64) ** 2
    return bool(torch.allclose(betas.double(), line, rtol=1e-5))


def _numbers(state: State, pattern: str) -> set[int]:
    found = (re.match(pattern, key) for key in state)
    return {int(match[1]) for match in found if match}


def _shape(state: State, key: str, path: Path) -> tuple[int, ...]:
    if key not in state:
        raise _Unknown(path, key)
    return tuple(state[key].shape)


class _Unknown(UserError):
    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is incomplete or of an unknown build: {what} is not as in the original checkpoint")
