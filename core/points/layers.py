"""Layers over sets of points: group norm told a style, point-voxel convolution, set abstraction, feature propagation.

A layer is called with a :class:`Cloud` and gives one; what is within it is [B, C, N]. Names and order of the modules
are those of the published networks built of such layers (PVD, LION), so that their weights load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.points.neighbours import ball_query, farthest_points, interpolate, take
from core.points.voxels import devoxelise, grid_coordinates, voxelise

GROUPS = 8


@dataclass(frozen=True)
class Cloud:
    """A set of points on its way through a network.

    Attributes:
        features: [B, C, N].  coords: [B, 3, N].
        time: [B, T] embedded time, or None.  style: [B, S] what norms are told, or None.
    """

    features: Tensor
    coords: Tensor
    time: Tensor | None = None
    style: Tensor | None = None

    def timed(self) -> Tensor:
        """The features, with the time behind them where there is one."""
        if self.time is None:
            return self.features
        return torch.cat([self.features, self.time[:, :, None].expand(-1, -1, self.features.shape[2])], 1)


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose factor and offset are linear in a style; they start at 1 and 0, nearly whatever the style."""

    def __init__(self, channels: int, style: int, scale: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.emd = nn.Linear(style, 2 * channels)
        limit = math.sqrt(3 * scale / (0.5 * (style + 2 * channels)))  # "fan average", uniform
        nn.init.uniform_(self.emd.weight, -limit, limit)
        with torch.no_grad():
            self.emd.bias[:channels], self.emd.bias[channels:] = 1.0, 0.0

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        factor, offset = self.emd(style).view(len(x), -1, *[1] * (x.dim() - 2)).chunk(2, 1)
        return torch.addcmul(offset, self.norm(x), factor)


def norm(channels: int, style: int) -> nn.Module:
    """Told a style of that many numbers, or, of 0, nothing."""
    return AdaptiveGroupNorm(channels, style) if style else nn.GroupNorm(GROUPS, channels)


def run(layers: Any, x: Tensor, style: Tensor | None) -> Tensor:
    """Layers one after another; the adaptive norms among them are told the style."""
    for layer in layers:
        x = layer(x, style) if isinstance(layer, AdaptiveGroupNorm | SharedMlp) else layer(x)
    return x


class SharedMlp(nn.Module):
    """The same small network at every point (``dims`` 1) or neighbour (2): linear, norm, swish."""

    def __init__(self, channels: int, widths: int | Sequence[int], style: int = 0, dims: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in [widths] if isinstance(widths, int) else widths:
            conv = (nn.Conv1d if dims == 1 else nn.Conv2d)(channels, width, 1)
            layers += [conv, norm(width, style), nn.SiLU()]
            channels = width
        self.layers, self.channels = nn.ModuleList(layers), channels

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        return run(self.layers, x, style)


class SqueezeExcite3d(nn.Module):
    """Weighs the channels of a grid by what all of it shows (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 8
        self.fc = nn.Sequential(
            nn.Linear(channels, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3, 4)))[:, :, None, None, None]


class LinearAttention(nn.Module):
    """Attention whose cost is linear in the number of points (Shen et al. 2021), heads of 32 channels."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Conv2d(channels, 3 * heads * 32, 1, bias=False)
        self.to_out = nn.Conv2d(heads * 32, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x[..., None]).view(len(x), 3, self.heads, 32, -1).unbind(1)
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
        out = torch.einsum("bhde,bhdn->bhen", context, q)
        return self.to_out(out.reshape(len(x), -1, x.shape[2], 1))[..., 0]


class PointVoxelConv(nn.Module):
    """Two 3x3x3 convolutions on the grid that the points lie in, read back at the points, plus a network at each point.

    The grid is told nothing of gradients in coordinates: they flow through the point branch alone.
    """

    def __init__(
        self, channels: int, width: int, resolution: int, style: int = 0, dropout: float = 0.1, attention: bool = False
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.voxel_layers = nn.ModuleList([
            nn.Conv3d(channels, width, 3, padding=1), norm(width, style), nn.SiLU(), nn.Dropout(dropout),
            nn.Conv3d(width, width, 3, padding=1), norm(width, style), SqueezeExcite3d(width),
        ])  # fmt: skip
        self.attn = LinearAttention(width) if attention else None
        self.point_features = SharedMlp(channels, width, style)

    def forward(self, cloud: Cloud) -> Cloud:
        cells = grid_coordinates(cloud.coords, self.resolution)
        voxels = run(self.voxel_layers, voxelise(cloud.features, cells, self.resolution), cloud.style)
        out = devoxelise(voxels, cells) + self.point_features(cloud.features, cloud.style)
        return replace(cloud, features=out if self.attn is None else self.attn(out))


class SetAbstraction(nn.Module):
    """Fewer points, each of which knows its neighbourhood: a shared network over the neighbours' offsets and features,
    and the maximum (Qi et al. 2017, "PointNet++")."""

    def __init__(
        self, channels: int, widths: Sequence[int], centers: int, radius: float, neighbours: int, style: int = 0
    ) -> None:
        super().__init__()
        self.centers, self.radius, self.neighbours = centers, radius, neighbours
        self.mlps = nn.ModuleList([SharedMlp(channels + 3, widths, style, dims=2)])

    def forward(self, cloud: Cloud) -> Cloud:
        coords = cloud.coords
        centers = take(coords, farthest_points(coords, self.centers))
        index = ball_query(coords, centers, self.radius, self.neighbours)
        near = torch.cat([take(coords, index) - centers[..., None], take(cloud.features, index)], 1)
        return replace(cloud, features=self.mlps[0](near, cloud.style).amax(-1), coords=centers)


class FeaturePropagation(nn.Module):
    """Features of few points taken back to the many that they stand for, beside those that the many had."""

    def __init__(self, channels: int, widths: Sequence[int], style: int = 0) -> None:
        super().__init__()
        self.mlp = SharedMlp(channels, widths, style)

    def forward(self, few: Cloud, many: Cloud) -> Cloud:
        spread = interpolate(many.coords, few.coords, few.timed())
        features = torch.cat([spread, many.features], 1)
        return replace(few, features=self.mlp(features, few.style), coords=many.coords)


def embedded_time(t: Tensor, size: int) -> Tensor:
    """[B, size] sines and cosines of times ``t`` [B], of wavelengths from 2 pi to 20000 pi."""
    half = size // 2
    rate = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - 1)))
    angle = t[:, None].float() * rate
    return F.pad(torch.cat([angle.sin(), angle.cos()], 1), (0, size % 2))
