"""The network of IB-planes: a UNet over each view, in which a scene's views attend to each other, gives its plane."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.diffusion.multi_view import join_views
from core.generative.through_rendering import Code, Seen
from core.types import Cameras

_TOKEN = 8
_INPUT = 12


class NetworkConfig(BaseConfig):
    """Sizes of the network."""

    widths: list[int] = Field(default=[32, 48, 64], min_length=2)
    """Channels of each level, finest first; multiples of 8."""
    blocks: int = Field(default=1, ge=1)
    """Residual blocks of each level."""
    attended: int = Field(default=1, ge=0)
    """How many of the coarsest levels the views attend to each other in; they do in the middle too."""
    head_width: int = Field(default=16, ge=1)
    """Channels of one attention head."""


class PlanesNetwork(nn.Module):
    """From :class:`Seen` to planes with their cameras.

    Colours, rays and an earlier answer go in. Rays are told in the frame of the scene's first camera: turning or moving
    the world changes nothing.
    """

    def __init__(self, o: NetworkConfig, channels: int, size: int) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        levels = len(o.widths)
        attends = [level >= levels - o.attended for level in range(levels)]
        self.unet: Any = UNet2DConditionModel(
            sample_size=size, in_channels=_INPUT, out_channels=channels, block_out_channels=tuple(o.widths),
            layers_per_block=o.blocks, cross_attention_dim=_TOKEN, norm_num_groups=8,
            attention_head_dim=[max(1, w // o.head_width) for w in o.widths],
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        )  # fmt: skip
        self.joint = join_views(self.unet)

    def forward(self, seen: Seen) -> list[Code]:
        scenes, views = seen.t.shape
        x = torch.cat([seen.rgb.flatten(0, 1), relative_rays(seen.cameras, scenes), seen.guess.flatten(0, 1)], 1)
        nothing = x.new_zeros(len(x), 1, _TOKEN)  # the UNet wants a text; there is none
        self.joint.frames = views
        planes = self.unet(x, seen.t.flatten(), encoder_hidden_states=nothing).sample.unflatten(0, (scenes, views))
        c2w = seen.cameras.c2w.unflatten(0, (scenes, views))
        fov = seen.cameras.fov_y.unflatten(0, (scenes, views))
        keep = torch.ones(views, dtype=torch.bool, device=x.device)
        return [{"planes": p, "c2w": c, "fov": f, "keep": keep} for p, c, f in zip(planes, c2w, fov, strict=True)]


def relative_rays(cameras: Cameras, scenes: int) -> Tensor:
    """[B, 6, S, S] where rays start (world units) and go, in the frame of the first of each scene's cameras."""
    origins, directions = cameras.rays()
    first = cameras.world_to_camera.unflatten(0, (scenes, -1))[:, :1].expand(-1, len(cameras) // scenes, -1, -1)
    frame = first.flatten(0, 1)
    turned = [torch.einsum("bij,bhwj->bihw", frame[:, :3, :3], x) for x in (origins, directions)]
    return torch.cat([turned[0] + frame[:, :3, 3, None, None], turned[1]], 1)
