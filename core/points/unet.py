"""The U-net over points with point-voxel convolutions: encoder, decoder and denoiser of point clouds alike.

Structure after Liu et al. 2019 (PVCNN++), Zhou et al. 2021 (PVD) and Zeng et al. 2022 (LION, appendix D).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config
from core.points.layers import (
    Cloud,
    FeaturePropagation,
    LinearAttention,
    PointVoxelConv,
    SetAbstraction,
    SharedMlp,
    embedded_time,
    run,
)


class DownConfig(Config):
    """One level downwards: convolutions, then fewer points."""

    channels: int = Field(default=0, ge=0)
    """Width of the convolutions; 0 has none."""
    blocks: int = Field(default=1, ge=1)
    """Convolutions; levels after the first have one whatever is said here, as the published networks have."""
    resolution: int = Field(default=8, ge=2)
    """Voxels along a side of their grid."""
    centers: int = Field(ge=1)
    """Points that are left."""
    radius: float = Field(gt=0)
    """Of their neighbourhoods, in the points' units."""
    neighbours: int = Field(default=32, ge=1)
    """Points that are looked at in each."""
    mlp: tuple[int, ...]
    """Widths of the network over neighbours."""


class UpConfig(Config):
    """One level upwards: features taken back to more points, then convolutions."""

    mlp: tuple[int, ...]
    """Widths of the network over features from below and from beside."""
    channels: int = Field(ge=8)
    """Width of the convolutions."""
    blocks: int = Field(default=1, ge=1)
    """Convolutions."""
    resolution: int = Field(default=8, ge=2)
    """Voxels along a side of their grid."""


class UnetConfig(Config):
    """The levels of a U-net over points."""

    down: tuple[DownConfig, ...] = (
        DownConfig(channels=16, blocks=1, resolution=8, centers=128, radius=0.3, neighbours=16, mlp=(16, 32)),
        DownConfig(channels=32, resolution=8, centers=32, radius=0.6, neighbours=16, mlp=(32, 64)),
        DownConfig(centers=8, radius=1.2, neighbours=16, mlp=(64, 64)),
    )
    """From all points down to a few."""
    up: tuple[UpConfig, ...] = (
        UpConfig(mlp=(64,), channels=64, resolution=8),
        UpConfig(mlp=(64,), channels=32, resolution=8),
        UpConfig(mlp=(32, 32), channels=32, resolution=8),
    )
    """And back, as many."""
    head: int = Field(default=64, ge=8)
    """Width of the last layer."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In convolutions and the head."""


def down_stages(
    levels: tuple[DownConfig, ...], channels: int, style: int, time: int, dropout: float
) -> tuple[nn.ModuleList, list[int], int]:
    """Modules of the way down, the channels that enter each, and those that leave the last."""
    stages, entering = [], []
    for number, level in enumerate(levels):
        entering.append(channels)
        extra = time if number else 0
        blocks: list[nn.Module] = []
        for block in range((level.blocks if number == 0 else 1) if level.channels else 0):
            told = extra if block == 0 else 0
            attention = number % 2 == 1 and block == 0
            blocks.append(PointVoxelConv(channels + told, level.channels, level.resolution, style, dropout, attention))
            channels = level.channels
        into = channels + (0 if level.channels else extra)
        blocks.append(SetAbstraction(into, level.mlp, level.centers, level.radius, level.neighbours, style))
        channels = level.mlp[-1]
        stages.append(nn.Sequential(*blocks) if len(blocks) > 1 else blocks[0])
    return nn.ModuleList(stages), entering, channels


class PointUnet(nn.Module):
    """[B, N, out] from points with features [B, N, 3 + extra], whose first three are coordinates.

    Args:
        style: numbers that norms are told; 0 has plain norms.
        time: size of the embedded time; 0 knows of no time.
        condition: numbers of a further condition, merged into the style; 0 has none.
    """

    def __init__(self, options: Any, extra: int, out: int, style: int, time: int = 0, condition: int = 0) -> None:
        super().__init__()
        self.time = time
        if time:
            self.embedf = nn.Sequential(nn.Linear(time, time), nn.LeakyReLU(0.1), nn.Linear(time, time))
        if condition:
            merged = time or style
            self.clip_forge_mapping = nn.Linear(condition, merged)
            self.style_clip = nn.Linear(style + merged, style)
        self.told = condition
        self.sa_layers, entering, channels = down_stages(options.down, 3 + extra, style, time, options.dropout)
        self.global_att = LinearAttention(channels, 8)
        entering[0] = extra  # coordinates are not told twice
        ups = []
        for level, beside in zip(options.up, reversed(entering), strict=True):
            blocks: list[nn.Module] = [FeaturePropagation(channels + beside + time, level.mlp, style)]
            channels = level.mlp[-1]
            for _ in range(level.blocks):
                blocks.append(PointVoxelConv(channels, level.channels, level.resolution, style, options.dropout))
                channels = level.channels
            ups.append(nn.ModuleList(blocks))
        self.fp_layers = nn.ModuleList(ups)
        head = SharedMlp(channels, options.head, style)
        self.classifier = nn.ModuleList([head, nn.Dropout(options.dropout), nn.Conv1d(options.head, out, 1)])

    def forward(
        self, points: Tensor, style: Tensor, t: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """At times ``t`` [B] (as the embedding wants them: up to 1000), told ``style`` [B, S] and ``condition``."""
        x = points.transpose(1, 2).contiguous()
        time = None if t is None else self.embedf(embedded_time(t, self.time))
        if condition is not None and self.told:
            style = self.style_clip(torch.cat([style, self.clip_forge_mapping(condition)], 1))
        cloud, passed = Cloud(x, x[:, :3].contiguous(), time, style), []
        for number, stage in enumerate(self.sa_layers):
            passed.append(cloud)
            if number:
                cloud = Cloud(cloud.timed(), cloud.coords, time, style)
            cloud = stage(cloud)
        passed[0] = Cloud(x[:, 3:], passed[0].coords, time, style)
        cloud = Cloud(self.global_att(cloud.features), cloud.coords, time, style)
        for stage, many in zip(self.fp_layers, reversed(passed), strict=True):
            cloud = stage[0](cloud, many)  # type: ignore[index]
            for block in list(stage)[1:]:  # type: ignore[call-overload]
                cloud = block(cloud)
        return run(self.classifier, cloud.features, style).transpose(1, 2)


class PointEncoder(nn.Module):
    """[B, out] of points [B, N, 3]: the way down, the maximum over what is left, a linear map (PointNet++)."""

    def __init__(self, levels: tuple[DownConfig, ...], out: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers, _, channels = down_stages(levels, 3, 0, 0, dropout)
        self.mlp = nn.Linear(channels, out)

    def forward(self, points: Tensor) -> Tensor:
        x = points.transpose(1, 2).contiguous()
        cloud = Cloud(x, x)
        for stage in self.layers:
            cloud = stage(cloud)
        return self.mlp(cloud.features.amax(2))
