"""The three networks and their schedules, as diffusers has them: what a folder in Karlo's layout holds.

The prior is a causal transformer over token states, text embedding, timestep, noised picture embedding and a learned
query (Ramesh et al. 2022, section 2.2). The decoder is a UNet with one attention over pixels and context; the picture
embedding comes in through the time embedding and as further context tokens (section 2.1). The upsampler is a
convolutional UNet beside the low-resolution picture.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import nn

from core.config.base import Config as BaseConfig

PARTS = {"prior": ("prior",), "decoder": ("text_proj", "decoder"), "upsampler": ("super_res_first",)}
"""The networks of each part, by their names in Karlo's layout."""


class PriorConfig(BaseConfig):
    """The diffusion prior."""

    width: int = Field(default=128, ge=8)
    """Numbers per token, a multiple of `heads`."""
    heads: int = Field(default=4, ge=1)
    """Heads of attention."""
    layers: int = Field(default=4, ge=1)
    """Blocks of the transformer."""
    text_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of pictures whose text is kept from it in training, for guidance."""
    clip: float = Field(default=10.0, gt=0)
    """Estimates of the whitened embedding are kept within plus and minus this in sampling."""


class DecoderConfig(BaseConfig):
    """The decoder."""

    size: int = Field(default=32, ge=8)
    """Side of its pictures in pixels."""
    channels: tuple[int, ...] = (16, 48, 96, 128)
    """Width at each resolution, the finest first."""
    attended: int | None = Field(default=None, ge=1)
    """How many of the coarsest resolutions attend, never the finest; null: all but it."""
    layers: int = Field(default=1, ge=1)
    """Residual blocks at each resolution."""
    head: int = Field(default=16, ge=4)
    """Width of a head of attention."""
    context: int = Field(default=128, ge=8)
    """Width of the context."""
    tokens: int = Field(default=4, ge=1)
    """Context tokens that the picture embedding becomes."""
    groups: int = Field(default=8, ge=1)
    """Groups of normalisation."""
    embedding_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of pictures whose embedding is replaced by the learned null in training."""
    text_drop: float = Field(default=0.5, ge=0, le=1)
    """Share of pictures whose text is kept from it, drawn apart from the other; 1: it never hears text."""
    min_snr: float | None = Field(default=None, gt=0)
    """Signal-to-noise ratio from which on a picture's error counts less (Hang et al. 2023), 5 there; null: never."""
    coarse: float = Field(default=0.0, ge=0)
    """Weight of the error of means over the picture, its quarters and sixteenths; without it backgrounds stay tinted
    for long, since a picture's mean is one of so many numbers."""
    vlb: float = Field(default=1e-3, ge=0)
    """Weight of the variational bound, which teaches the variance, summed over timesteps in bits per number."""

    @field_validator("channels")
    @classmethod
    def _levels(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) < 2:
            raise ValueError("expected two resolutions or more")
        return value


class UpsamplerConfig(BaseConfig):
    """The upsampler."""

    size: int = Field(default=64, ge=16)
    """Side of its pictures in pixels."""
    channels: tuple[int, ...] = (32, 64)
    """Width at each resolution, the finest first."""
    layers: int = Field(default=1, ge=1)
    """Residual blocks at each resolution."""
    groups: int = Field(default=8, ge=1)
    """Groups of normalisation."""
    crop: float = Field(default=0.5, gt=0, le=1)
    """Side of the crops it is trained on, as a share of the picture's."""
    blur: tuple[float, float] = (0.4, 0.8)
    """Range of standard deviations, in pixels, of the blur that the small picture gets in training."""


def build_prior(o: PriorConfig, embedding: int, tokens: int) -> Any:
    """A ``PriorTransformer`` for embeddings of ``embedding`` numbers and texts of ``tokens`` tokens."""
    from diffusers import PriorTransformer

    return PriorTransformer(
        num_attention_heads=o.heads, attention_head_dim=o.width // o.heads, num_layers=o.layers,
        embedding_dim=embedding, num_embeddings=tokens, additional_embeddings=4,
    )  # fmt: skip


TIME = 256
"""Least width of the time embedding, which the picture embedding comes in through: a narrow UNet's own is too tight."""


def build_decoder(o: DecoderConfig, embedding: int) -> dict[str, Any]:
    """``text_proj`` and ``decoder``."""
    from diffusers import UNet2DConditionModel

    time = max(4 * o.channels[0], TIME)
    most = len(o.channels) - 1
    attended = most if o.attended is None else min(o.attended, most)
    plain = len(o.channels) - attended
    decoder = UNet2DConditionModel(
        sample_size=o.size, in_channels=3, out_channels=6, block_out_channels=o.channels, layers_per_block=o.layers,
        down_block_types=("ResnetDownsampleBlock2D",) * plain + ("SimpleCrossAttnDownBlock2D",) * attended,
        up_block_types=("SimpleCrossAttnUpBlock2D",) * attended + ("ResnetUpsampleBlock2D",) * plain,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=o.context, class_embed_type="identity",
        attention_head_dim=o.head, resnet_time_scale_shift="scale_shift", norm_num_groups=o.groups,
        time_embedding_dim=None if time == 4 * o.channels[0] else time,
    )  # fmt: skip
    projection = text_projection_class()(
        clip_extra_context_tokens=o.tokens, clip_embeddings_dim=embedding, time_embed_dim=time,
        cross_attention_dim=o.context,
    )  # fmt: skip
    return {"text_proj": projection, "decoder": decoder}


def plain_attention(decoder: Any) -> None:
    """Attention as products and a softmax: of PyTorch's fused kernel for CPUs, the way back is slow in bfloat16."""
    from diffusers.models.attention_processor import AttnAddedKVProcessor

    decoder.set_attn_processor(AttnAddedKVProcessor())


def build_upsampler(o: UpsamplerConfig) -> Any:
    """A ``UNet2DModel`` over the noisy picture and the enlarged small one."""
    from diffusers import UNet2DModel

    levels = len(o.channels)
    return UNet2DModel(
        sample_size=o.size, in_channels=6, out_channels=3, block_out_channels=o.channels, layers_per_block=o.layers,
        down_block_types=("ResnetDownsampleBlock2D",) * levels, up_block_types=("ResnetUpsampleBlock2D",) * levels,
        add_attention=False, norm_num_groups=o.groups,
    )  # fmt: skip


def build_part(name: str, options: Any, embedding: int, tokens: int) -> nn.ModuleDict:
    """The networks of ``prior``, ``decoder`` or ``upsampler``, by their names in Karlo's layout."""
    if name == "prior":
        return nn.ModuleDict({"prior": build_prior(options.prior, embedding, tokens)})
    if name == "decoder":
        return nn.ModuleDict(build_decoder(options.decoder, embedding))
    return nn.ModuleDict({"super_res_first": build_upsampler(options.upsampler)})


def build_schedulers(clip: float = 10.0) -> dict[str, Any]:
    """The cosine schedules of the three networks: x0-prediction of embeddings, noise with a learned variance, noise."""
    from diffusers import UnCLIPScheduler

    return {
        "prior_scheduler": UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=clip
        ),
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range", prediction_type="epsilon"),
        "super_res_scheduler": UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="epsilon"),
    }


def text_projection_class() -> Any:
    """diffusers' class of ``text_proj``, wherever this version keeps it."""
    from diffusers import UnCLIPPipeline

    return import_module(UnCLIPPipeline.__module__).UnCLIPTextProjModel


@torch.no_grad()
def whiten(networks: nn.ModuleDict, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Let networks start from the statistics [D] of the pictures' embeddings.

    The prior keeps them for whitening. The decoder's projections of embeddings start as if these were white, and the
    null embedding as their mean: with raw embeddings the first hundreds of steps go into finding that out.
    """
    if "prior" in networks:
        prior: Any = networks["prior"]
        prior.clip_mean.copy_(mean[None])
        prior.clip_std.copy_(std[None])
    if "text_proj" in networks:
        projection: Any = networks["text_proj"]
        projection.learned_classifier_free_guidance_embeddings.copy_(mean)
        for layer in (
            projection.clip_image_embeddings_project_to_time_embeddings,
            projection.clip_extra_context_tokens_proj,
        ):
            layer.weight.div_(std)
            layer.bias.sub_(layer.weight @ mean)
