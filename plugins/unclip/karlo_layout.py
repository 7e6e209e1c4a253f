"""Names of the same tensors in Karlo's original checkpoints and in diffusers; each table serves both directions.

Original attention keeps its projections fused, head by head as (query, key, value) or (key, value), and in the UNets as
1 x 1 convolutions; both are undone exactly. The projection to context tokens needs no change: its rows run over
channels first and tokens last, and diffusers reads them so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from core.errors import UserError

State = dict[str, Tensor]
Table = dict[tuple[str, ...], str]

PREFIXES = {"prior": "model.", "decoder": "model.", "text_proj": "model.", "super_res_first": "model_first_steps.",
            "super_res_last": "model_last_step."}  # fmt: skip
"""Before every key of a network in its checkpoint."""

_PRIOR = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
          "proj_in": "clip_img_proj", "embedding_proj": "text_emb_proj", "encoder_hidden_states_proj": "text_enc_proj",
          "positional_embedding": "positional_embedding", "prd_embedding": "prd_emb", "norm_out": "final_ln",
          "proj_to_clip_embeddings": "out_proj"}  # fmt: skip
_PRIOR_BLOCK = {"norm1": "ln_1", "norm3": "ln_2", "attn1.to_out.0": "attn.c_proj", "ff.net.0.proj": "mlp.c_fc",
                "ff.net.2": "mlp.c_proj"}  # fmt: skip
_TEXT = {"encoder_hidden_states_proj": "text_seq_proj.0", "text_encoder_hidden_states_norm": "text_seq_proj.1",
         "clip_extra_context_tokens_proj": "clip_tok_proj", "embedding_proj": "text_feat_proj",
         "learned_classifier_free_guidance_embeddings": "cf_param",
         "clip_image_embeddings_project_to_time_embeddings": "clip_emb"}  # fmt: skip
_UNET = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
         "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
_ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out"}
_FUSED = {"qkv": ("to_q", "to_k", "to_v"), "encoder_kv": ("add_k_proj", "add_v_proj")}
_STATISTICS = ("clip_mean", "clip_std")


def from_karlo(name: str, network: Any, state: State, statistics: tuple[Tensor, Tensor] | None = None) -> State:
    """The state of ``network`` (diffusers' class, any weights, the meta device too) out of an original checkpoint's.

    Args:
        name: ``prior``, ``decoder``, ``text_proj``, ``super_res_first`` or ``super_res_last``.
        state: all of the checkpoint's tensors; what belongs to other networks is passed over.
        statistics: mean and standard deviation [D] of embeddings, for the prior.

    Raises:
        UserError: a tensor is missing, left over, or of another shape.
    """
    made: State = {}
    wanted = network.state_dict()
    for keys, there in _rows(name, network):
        if there not in state:
            raise UserError(f"this is no Karlo checkpoint of '{name}': it lacks {there}")
        parts = _split(state[there], len(keys), _head(name, network)) if len(keys) > 1 else [state[there]]
        for key, part in zip(keys, parts, strict=True):
            flat = part[..., 0] if part.dim() == wanted[key].dim() + 1 else part
            if flat.shape != wanted[key].shape:
                raise UserError(f"{there} has shape {list(state[there].shape)}, which is not Karlo's size of '{name}'")
            made[key] = flat
    if name == "prior":
        if statistics is None:
            raise UserError("the prior needs the statistics of its embeddings beside it (ViT-L-14_stats.th)")
        made |= {key: value.view(1, -1) for key, value in zip(_STATISTICS, statistics, strict=True)}
    return made


def to_karlo(name: str, network: Any) -> State:
    """The original checkpoint's tensors of ``network``: what ``from_karlo`` undoes (without the prior's statistics)."""
    mine, made = network.state_dict(), {}
    for keys, there in _rows(name, network):
        parts = [mine[key] for key in keys]
        whole = _fuse(parts, _head(name, network)) if len(keys) > 1 else parts[0]
        # Original attention of the UNets is a 1 x 1 convolution.
        convolution = there.endswith(".weight") and there.split(".")[-2] in (*_FUSED, "proj_out")
        made[there] = whole[..., None] if convolution and name != "prior" else whole
    return made


def _rows(name: str, network: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """``(keys here, key there)``, several here where the original is fused."""
    table = _prior(network) if name == "prior" else _text() if name == "text_proj" else _unet(network)
    mine = set(network.state_dict())
    for here, there in table.items():
        for end in ("", ".weight", ".bias"):
            keys = tuple(f"{h}{end}" for h in here)
            if mine.issuperset(keys):
                mine -= set(keys)
                yield keys, f"{PREFIXES[name]}{there}{end}"
    left = mine - set(_STATISTICS)
    if left:
        raise UserError(f"Karlo's layout has no place for {min(left)} of '{name}'")


def _text() -> Table:
    return {(h,): t for h, t in _TEXT.items()}


def _prior(network: Any) -> Table:
    table: Table = {(h,): t for h, t in _PRIOR.items()}
    for k in range(len(network.transformer_blocks)):
        here, there = f"transformer_blocks.{k}", f"transformer.resblocks.{k}"
        table |= {(f"{here}.{h}",): f"{there}.{t}" for h, t in _PRIOR_BLOCK.items()}
        table[tuple(f"{here}.attn1.{h}" for h in _FUSED["qkv"])] = f"{there}.attn.c_qkv"
    return table


def _unet(network: Any) -> Table:
    """Blocks are counted through there; what halves or doubles the size is a block of its own, or joins the last."""
    config = network.config
    table: Table = {(h,): t for h, t in _UNET.items()}
    count, levels = 1, len(config.block_out_channels)
    for b, kind in enumerate(config.down_block_types):
        for j in range(config.layers_per_block):
            table |= _block(f"down_blocks.{b}", j, f"input_blocks.{count}", "Attn" in kind)
            count += 1
        if b < levels - 1:
            table |= _resnet(f"down_blocks.{b}.downsamplers.0", f"input_blocks.{count}.0")
            count += 1
    count = 0
    for b, kind in enumerate(config.up_block_types):
        for j in range(config.layers_per_block + 1):
            table |= _block(f"up_blocks.{b}", j, f"output_blocks.{count}", "Attn" in kind)
            count += 1
        place = 2 if "Attn" in kind else 1
        table |= _resnet(f"up_blocks.{b}.upsamplers.0", f"output_blocks.{count - 1}.{place}")
    attended = any(key.startswith("mid_block.attentions") for key in network.state_dict())
    table |= _resnet("mid_block.resnets.0", "middle_block.0")
    table |= _resnet("mid_block.resnets.1", f"middle_block.{1 + attended}")
    return table | _attention("mid_block.attentions.0", "middle_block.1")


def _block(here: str, j: int, there: str, attended: bool) -> Table:
    table = _resnet(f"{here}.resnets.{j}", f"{there}.0")
    return table | (_attention(f"{here}.attentions.{j}", f"{there}.1") if attended else {})


def _resnet(here: str, there: str) -> Table:
    return {(f"{here}.{h}",): f"{there}.{t}" for h, t in _RESNET.items()}


def _attention(here: str, there: str) -> Table:
    table: Table = {(f"{here}.{h}",): f"{there}.{t}" for h, t in _ATTENTION.items()}
    return table | {tuple(f"{here}.{h}" for h in names): f"{there}.{fused}" for fused, names in _FUSED.items()}


def _head(name: str, network: Any) -> int:
    """Width of a head of attention."""
    width = network.config.attention_head_dim
    return int(width if isinstance(width, int) else width[0])


def _split(fused: Tensor, count: int, head: int) -> list[Tensor]:
    """[heads * count * head, ...] to ``count`` tensors [heads * head, ...]."""
    parts = fused.reshape(-1, count, head, *fused.shape[1:]).unbind(1)
    return [part.reshape(-1, *fused.shape[1:]) for part in parts]


def _fuse(parts: list[Tensor], head: int) -> Tensor:
    """The inverse of ``_split``."""
    stacked = torch.stack([part.reshape(-1, head, *part.shape[1:]) for part in parts], 1)
    return stacked.reshape(-1, *parts[0].shape[1:])
