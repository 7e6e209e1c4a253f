"""Names of the same tensors in the LDM layout (Rombach et al. 2022) and in diffusers and transformers.

Each table maps a prefix of one to a prefix of the other, so it serves both directions. A few tensors differ in shape
too: the autoencoder's attention is a 1 x 1 convolution there and a linear layer here; OpenAI's CLIP fuses the three
projections of attention and transposes the last one. All of that is undone exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]

UNET, EMA, VAE = "model.diffusion_model.", "model_ema.", "first_stage_model."
CLIP, CAMERA = "cond_stage_model.model.visual.", "cc_projection."

_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
_VAE_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CLIP_ENDS = {"vision_model.pre_layrnorm": "ln_pre", "vision_model.post_layernorm": "ln_post",
              "vision_model.embeddings.patch_embedding": "conv1"}  # fmt: skip
_CLIP_LAYER = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
               "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
_CLIP_BARE = {"vision_model.embeddings.class_embedding": "class_embedding",
              "vision_model.embeddings.position_embedding.weight": "positional_embedding"}  # fmt: skip
_QKV = ("q_proj", "k_proj", "v_proj")


def ema_name(name: str) -> str:
    """Of a weight ``model.…``: the average's key, which has lost every dot but the first."""
    return EMA + name.removeprefix("model.").replace(".", "")


def unet_names(blocks: int, layers: int, attended: set[int]) -> dict[str, str]:
    """Prefixes of a UNet's modules, here to there.

    Args:
        blocks: levels of resolution.  layers: residual blocks per level on the way down.
        attended: output blocks that hold attention, counted through.
    """
    table = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "class_embedding.linear_1": "camera_embed.0", "class_embedding.linear_2": "camera_embed.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
    for b in range(blocks):
        for j in range(layers):
            place = f"input_blocks.{1 + b * (layers + 1) + j}"
            table |= _joined(f"down_blocks.{b}.resnets.{j}", f"{place}.0", _RESNET)
            table[f"down_blocks.{b}.attentions.{j}"] = f"{place}.1"
        table[f"down_blocks.{b}.downsamplers.0.conv"] = f"input_blocks.{(b + 1) * (layers + 1)}.0.op"
        for j in range(layers + 1):
            n = b * (layers + 1) + j
            table |= _joined(f"up_blocks.{b}.resnets.{j}", f"output_blocks.{n}.0", _RESNET)
            table[f"up_blocks.{b}.attentions.{j}"] = f"output_blocks.{n}.1"
        last = (b + 1) * (layers + 1) - 1
        slot = 2 if last in attended else 1
        table[f"up_blocks.{b}.upsamplers.0.conv"] = f"output_blocks.{last}.{slot}.conv"
    for n, m in ((0, 0), (1, 2)):
        table |= _joined(f"mid_block.resnets.{n}", f"middle_block.{m}", _RESNET)
    return table | {"mid_block.attentions.0": "middle_block.1"}


def vae_names(blocks: int, layers: int) -> dict[str, str]:
    """Prefixes of an autoencoder's modules, here to there; ``layers``: the encoder's residual blocks per level."""
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        ends = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
        table |= _joined(half, half, ends)
        for n in range(2):
            table |= _joined(f"{half}.mid_block.resnets.{n}", f"{half}.mid.block_{n + 1}", _VAE_RESNET)
        table |= _joined(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION)
    for b in range(blocks):
        there = blocks - 1 - b  # the decoder counts its levels from the finest one
        for j in range(layers):
            table |= _joined(f"encoder.down_blocks.{b}.resnets.{j}", f"encoder.down.{b}.block.{j}", _VAE_RESNET)
        for j in range(layers + 1):
            table |= _joined(f"decoder.up_blocks.{b}.resnets.{j}", f"decoder.up.{there}.block.{j}", _VAE_RESNET)
        table[f"encoder.down_blocks.{b}.downsamplers.0.conv"] = f"encoder.down.{b}.downsample.conv"
        table[f"decoder.up_blocks.{b}.upsamplers.0.conv"] = f"decoder.up.{there}.upsample.conv"
    return table


def renamed(state: Mapping[str, Tensor], table: Mapping[str, str]) -> State:
    """A state with each key's longest prefix in ``table`` replaced; keys without one are left out."""
    made: State = {}
    for key, value in state.items():
        for cut in _cuts(key):
            if key[:cut] in table:
                made[table[key[:cut]] + key[cut:]] = value
                break
    return made


def inverse(table: Mapping[str, str]) -> dict[str, str]:
    """The table read from right to left."""
    return {there: here for here, there in table.items()}


def reshaped(state: State, shapes: Mapping[str, Any]) -> State:
    """The state with each tensor in the shape that is wanted, where only dimensions of length 1 differ."""
    return {k: v.reshape(shapes[k]) if k in shapes and v.numel() == torch.Size(shapes[k]).numel() else v
            for k, v in state.items()}  # fmt: skip


def as_convolutions(state: State) -> State:
    """An autoencoder's state in LDM's names, its attention as 1 x 1 convolutions."""
    mine = {f".mid.attn_1.{name}.weight" for name in ("q", "k", "v", "proj_out")}
    return {k: v[..., None, None] if any(k.endswith(e) for e in mine) and v.ndim == 2 else v for k, v in state.items()}


def clip_here(state: Mapping[str, Tensor]) -> State:
    """OpenAI's vision tower (``conv1.weight``, ``transformer.resblocks.…``, ``proj``) as transformers names it."""
    layers = 1 + max((int(k.split(".")[2]) for k in state if k.startswith("transformer.resblocks.")), default=-1)
    made = renamed(state, inverse(_clip_modules(layers)))
    for name, there in _CLIP_BARE.items():
        if there in state:
            made[name] = state[there]
    if "proj" in state:
        made["visual_projection.weight"] = state["proj"].T.contiguous()
    for n in range(layers):
        for end in ("weight", "bias"):
            fused = state.get(f"transformer.resblocks.{n}.attn.in_proj_{end}")
            for name, part in zip(_QKV, () if fused is None else fused.chunk(3), strict=False):
                made[f"vision_model.encoder.layers.{n}.self_attn.{name}.{end}"] = part.contiguous()
    return made


def clip_there(state: Mapping[str, Tensor]) -> State:
    """The inverse of :func:`clip_here`."""
    layers = 1 + max(int(k.split(".")[3]) for k in state if k.startswith("vision_model.encoder.layers."))
    made = renamed(state, _clip_modules(layers))
    for name, there in _CLIP_BARE.items():
        made[there] = state[name]
    made["proj"] = state["visual_projection.weight"].T.contiguous()
    for n in range(layers):
        for end in ("weight", "bias"):
            parts = [state[f"vision_model.encoder.layers.{n}.self_attn.{name}.{end}"] for name in _QKV]
            made[f"transformer.resblocks.{n}.attn.in_proj_{end}"] = torch.cat(parts)
    return made


def _clip_modules(layers: int) -> dict[str, str]:
    table = dict(_CLIP_ENDS)
    for n in range(layers):
        table |= _joined(f"vision_model.encoder.layers.{n}", f"transformer.resblocks.{n}", _CLIP_LAYER)
    return table


def _joined(here: str, there: str, table: Mapping[str, str]) -> dict[str, str]:
    return {f"{here}.{a}": f"{there}.{b}" for a, b in table.items()}


def _cuts(key: str) -> Iterator[int]:
    """Where a key's prefixes end, the longest first."""
    cut = key.rfind(".")
    while cut > 0:
        yield cut
        cut = key.rfind(".", 0, cut)
