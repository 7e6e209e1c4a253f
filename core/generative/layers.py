"""Blocks of networks over pictures and volumes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolution(dim: int, channels: int, out: int, kernel: int = 3, stride: int = 1) -> Any:
    """A convolution in ``dim`` dimensions that keeps the size, but for the stride."""
    kind: Any = nn.Conv3d if dim == 3 else nn.Conv2d
    return kind(channels, out, kernel, stride, kernel // 2)


def norm(channels: int) -> nn.GroupNorm:
    """Group norm in at most 8 groups."""
    return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)


class ResBlock(nn.Module):
    """Two convolutions with a skip; the time embedding scales and shifts between them (FiLM; Perez et al. 2018)."""

    def __init__(self, dim: int, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(channels), convolution(dim, channels, out)
        self.norm2, self.conv2 = norm(out), convolution(dim, out, out)
        self.film = nn.Linear(time, 2 * out)
        self.skip = convolution(dim, channels, out, 1) if channels != out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[B, C', ...] of [B, C, ...] and time embeddings [B, T]."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(F.silu(time)).view(len(x), -1, *[1] * (x.dim() - 2)).chunk(2, 1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.conv2(F.silu(h)) + self.skip(x)


class SpaceAttention(nn.Module):
    """Each voxel of a volume attends to all others of the same volume."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.inward, self.outward = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, D, D]."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.inward(tokens).chunk(3, -1)
        return x + self.outward(F.scaled_dot_product_attention(q, k, v)).transpose(1, 2).view_as(x)


class ViewAttention(nn.Module):
    """Each voxel of a volume attends to the same voxel of every view's volume, and to nothing else.

    So the order of the views does not matter, nor is their number fixed.
    """

    def __init__(self, channels: int, views: int) -> None:
        super().__init__()
        self.match = convolution(3, channels, views, 1)
        self.norm, self.view_norm = norm(views), norm(views)
        self.query, self.key, self.value, self.outward = (convolution(3, views, views, 1) for _ in range(4))
        self.after = norm(views)

    def forward(self, x: Tensor, volumes: Tensor) -> Tensor:
        """[B, C', D, D, D] of a volume [B, C, D, D, D] and those of V views [B, V, C', D, D, D]."""
        x = self.match(x)
        scenes, views = volumes.shape[:2]
        seen = self.view_norm(volumes.flatten(0, 1))
        key, value = (part(seen).unflatten(0, (scenes, views)) for part in (self.key, self.value))
        query = self.query(self.norm(x))[:, None]
        share = ((query * key).sum(2, keepdim=True) * query.shape[2] ** -0.5).softmax(1)
        return self.after(x + self.outward((share * value).sum(1)))


def doubled(x: Tensor) -> Tensor:
    """[B, C, 2D, 2D, 2D] by repeating."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def centres(volume: int, nodes: int) -> Tensor:
    """[volume] places in [-1, 1] of the cells of a grid whose output is repeated up to ``nodes`` nodes from -1 to 1:
    the mean of the nodes that a cell becomes."""
    return torch.linspace(-1, 1, nodes).view(volume, -1).mean(1)
