"""The viewset network: pictures to features, these to one volume per view, and those to one of colour and density.

Szymanowicz et al. 2023, "Viewset Diffusion: (0-)Image-Conditioned 3D Generative Models from 2D Data", section 3.3.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.generative.layers import ResBlock, SpaceAttention, ViewAttention, centres, convolution, doubled, norm
from core.generative.through_rendering import Code, Seen
from core.types import Cameras


class NetworkConfig(BaseConfig):
    """Sizes of the network."""

    features: int = Field(default=32, ge=2)
    """Channels of a picture's features, before the coarse and the fine ones are put together."""
    stride: int = Field(default=2, ge=1)
    """Pixels from one feature to the next."""
    volume: int = Field(default=32, ge=4)
    """Cells a side of the volumes that views become; the geometry's nodes are as many or twice as many."""
    channels: int = Field(default=64, ge=4)
    """Width of the finest level of the 3D UNet."""
    widths: list[int] = Field(default=[1, 2, 4, 8], min_length=1)
    """Width of each level, finest first, in `channels`."""
    blocks: int = Field(default=2, ge=1)
    """Residual blocks of each level."""
    attention: list[int] = [8, 4]
    """Sides of the volumes in which voxels attend to each other."""
    head: int = Field(default=32, ge=4)
    """Width of the blocks that work at the geometry's own resolution."""
    head_blocks: int = Field(default=2, ge=0)
    """How many of those."""
    fog: float = -3.0
    """First value of the raw density everywhere; what it means is the geometry's `gain` and `scale`."""


class PictureFeatures(nn.Module):
    """[N, 2F, s, s] of pictures with their rays [N, 12, S, S]: fine features beside coarse ones."""

    def __init__(self, o: NetworkConfig, time: int) -> None:
        super().__init__()
        self.first = convolution(2, 12, o.features, 7, o.stride)
        self.blocks = nn.ModuleList(ResBlock(2, o.features, o.features, time) for _ in range(2))
        self.down = convolution(2, 4 * o.features, o.features)
        self.low = ResBlock(2, o.features, o.features, time)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        fine = self.first(x)
        for block in self.blocks:
            fine = block(fine, time)
        coarse = self.low(self.down(F.pixel_unshuffle(fine, 2)), time)
        return torch.cat([fine, F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)], 1)


class Encoder(nn.Module):
    """One view's volume, level by level: [N, w_l C, D / 2^l, ...] for each l; the same weights for every view."""

    def __init__(self, o: NetworkConfig, channels: int, time: int) -> None:
        super().__init__()
        widths = [o.channels * w for w in o.widths]
        self.first = convolution(3, channels, widths[0])
        self.levels, self.down, self.spaces = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            self.levels.append(nn.ModuleList(ResBlock(3, width, width, time) for _ in range(o.blocks)))
            at = o.volume >> level
            self.spaces.append(SpaceAttention(width) if at in o.attention else nn.Identity())
            last = level == len(widths) - 1
            self.down.append(nn.Identity() if last else convolution(3, width, widths[level + 1], 3, 2))

    def forward(self, x: Tensor, time: Tensor) -> list[Tensor]:
        x, out = self.first(x), []
        for blocks, space, down in zip(self.levels, self.spaces, self.down, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, time)
            out.append(x := space(x))
            x = down(x)
        return out


class Decoder(nn.Module):
    """One volume from those of the views; at every level it asks them through attention over views."""

    def __init__(self, o: NetworkConfig, time: int) -> None:
        super().__init__()
        widths = [o.channels * w for w in o.widths]
        side = o.volume >> (len(widths) - 1)
        self.query = nn.Parameter(0.1 * torch.randn(1, widths[-1], side, side, side))
        pairs = zip([*widths[1:], widths[-1]], widths, strict=True)
        self.ask = nn.ModuleList(ViewAttention(before, width) for before, width in pairs)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResBlock(3, width, width, time) for _ in range(o.blocks)) for width in widths
        )

    def forward(self, volumes: list[Tensor], time: Tensor) -> Tensor:
        """[B, C, D, D, D] of the views' volumes [B, V, w_l C, ...] by level and time embeddings [B, T]."""
        x = self.query.expand(len(time), -1, -1, -1, -1)
        for level in reversed(range(len(volumes))):
            x = self.ask[level](x, volumes[level])
            for block in self.levels[level]:  # type: ignore[attr-defined]
                x = block(x, time)
            x = doubled(x) if level else x
        return x


class ViewsetNetwork(nn.Module):
    """From :class:`Seen` to the parameters ``shape`` and ``colour`` of a geometry ``voxel`` of ``nodes`` a side.

    Each voxel also hears where it lies and how deep in each view, which the published network is left to infer.
    """

    centres: Tensor

    def __init__(self, o: NetworkConfig, nodes: int, bound: float) -> None:
        super().__init__()
        time = 4 * o.channels
        self.options, self.nodes = o, nodes
        self.time = Timesteps(o.channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embed = TimestepEmbedding(o.channels, time)
        self.features = PictureFeatures(o, time)
        self.encoder, self.decoder = Encoder(o, 2 * o.features + 4, time), Decoder(o, time)
        self.widen = convolution(3, o.channels, o.head, 1)
        self.head = nn.ModuleList(ResBlock(3, o.head, o.head, time) for _ in range(o.head_blocks))
        answer = convolution(3, o.head, 4)
        nn.init.zeros_(answer.weight)
        nn.init.zeros_(answer.bias)
        nn.init.constant_(answer.bias[:1], o.fog)
        self.last = nn.Sequential(norm(o.head), nn.SiLU(), answer)
        parts: list[Any] = [self.encoder, self.decoder, self.widen, self.head, self.last]
        for part in parts:
            part.to(memory_format=torch.channels_last_3d)  # half the time on CPUs
        axis = centres(o.volume, nodes) * bound
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")  # rows of the geometry's table: x fastest
        self.register_buffer("centres", torch.stack([x, y, z], -1).view(-1, 3), persistent=False)

    def forward(self, seen: Seen) -> list[Code]:
        scenes, views = seen.t.shape
        time = self.embed(self.time(seen.t.flatten()).to(seen.rgb))
        volumes = self.unprojected(self.features(self._pictures(seen), time), seen.cameras)
        volumes = volumes.contiguous(memory_format=torch.channels_last_3d)
        levels = [x.unflatten(0, (scenes, views)) for x in self.encoder(volumes, time)]
        overall = time.unflatten(0, (scenes, views)).amax(1)
        x = self.widen(self.decoder(levels, overall))
        x = doubled(x) if x.shape[-1] < self.nodes else x
        for block in self.head:
            x = block(x, overall)
        rows = self.last(x).flatten(2).transpose(1, 2)  # [B, nodes^3, 4]
        return [{"shape": r[None, :, :1], "colour": r[None, :, 1:]} for r in rows]

    def _pictures(self, seen: Seen) -> Tensor:
        """[B V, 12, S, S]: colours, where rays start, where they go, an earlier answer."""
        origins, directions = (x.movedim(-1, 1) for x in seen.cameras.rays())
        return torch.cat([seen.rgb.flatten(0, 1), origins, directions, seen.guess.flatten(0, 1)], 1)

    def unprojected(self, features: Tensor, cameras: Cameras) -> Tensor:
        """[B V, F + 4, D, D, D]: at each voxel the features where it appears in a view, its place and its depth there.

        Voxels outside a picture get those of its border.
        """
        side = self.options.volume
        pixels, depth = cameras.project(self.centres)
        at = pixels / pixels.new_tensor([cameras.width, cameras.height]) * 2 - 1
        found = F.grid_sample(features, at[:, :, None], padding_mode="border", align_corners=False)[..., 0]
        place = self.centres.T.expand(len(cameras), -1, -1)
        depth = (depth - cameras.distance[:, None])[:, None]
        return torch.cat([found, place, depth], 1).unflatten(2, (side, side, side))


def check_nodes(o: NetworkConfig, geometry: Any) -> str | None:
    """Why the network cannot fill such a geometry, if it cannot."""
    nodes, levels = geometry.cells + 1, len(o.widths)
    if nodes not in (o.volume, 2 * o.volume):
        fits = f"{o.volume - 1} or {2 * o.volume - 1} cells do"
        return f"geometry.cells={geometry.cells} does not fit network.volume={o.volume}: {fits}"
    if o.volume % (1 << (levels - 1)):
        return f"network.volume={o.volume} cannot be halved {levels - 1} times, once per level after the first"
    return None
