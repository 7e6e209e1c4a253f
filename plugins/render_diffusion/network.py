"""The network of RenderDiffusion: one noisy picture to three planes in the object's own frame.

Anciukevičius et al. 2023, "RenderDiffusion: Image Diffusion for 3D Reconstruction, Inpainting and Generation",
section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DModel
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.generative.through_rendering import Code, Seen


class NetworkConfig(BaseConfig):
    """Sizes of the network."""

    channels: list[int] = Field(default=[32, 64, 128, 256], min_length=1)
    """Width of each level of the UNet, finest first."""
    blocks: int = Field(default=2, ge=1)
    """Residual blocks of each level."""
    attention: list[int] = [16, 8]
    """Sides in pixels of the levels that have self-attention."""
    patch: int = Field(default=1, ge=1)
    """Side in pixels of the squares that enter as one pixel of more channels, and leave as so many again; 1 as
    published. 2 costs half the time."""
    head: int = Field(default=32, ge=1)
    """Channels of each attention head; a level's width is a multiple of it."""


class PlaneNetwork(nn.Module):
    """From :class:`Seen`, of one view each, to the parameter ``planes`` [3, C, S, S] of a geometry ``triplane``.

    It does not hear of the camera: planes that turned with it could be a picture on a board.
    """

    def __init__(self, o: NetworkConfig, size: int, features: int) -> None:
        super().__init__()
        self.patch, inner = o.patch, size // o.patch
        attends = [inner >> level in o.attention for level in range(len(o.channels))]
        self.unet: Any = UNet2DModel(
            sample_size=inner, in_channels=6 * o.patch**2, out_channels=3 * features * o.patch**2,
            layers_per_block=o.blocks,
            block_out_channels=tuple(o.channels), norm_num_groups=8, attention_head_dim=o.head,
            resnet_time_scale_shift="scale_shift",  # what is only added, group norms of few channels take away again
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        )  # fmt: skip

    def forward(self, seen: Seen) -> list[Code]:
        x = torch.cat([seen.rgb[:, 0], seen.guess[:, 0]], 1)
        planes = F.pixel_shuffle(self.unet(F.pixel_unshuffle(x, self.patch), seen.t[:, 0]).sample, self.patch)
        return [{"planes": one} for one in planes.unflatten(1, (3, -1))]
