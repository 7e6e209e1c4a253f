"""Networks of the two priors: noise in the global latent, noise in latent points (Zeng et al. 2022, section 3.2)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config
from core.points.layers import embedded_time
from core.points.unet import PointUnet, UnetConfig


class GlobalConfig(Config):
    """The network over the global latent."""

    width: int = Field(default=256, ge=8, multiple_of=8)
    """Of its residual blocks."""
    blocks: int = Field(default=4, ge=1)
    """How many."""
    time: int = Field(default=64, ge=4, multiple_of=2)
    """Size of the embedded time."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In blocks; those that are told a condition have none, as published."""


class LocalConfig(Config):
    """The network over latent points."""

    mlps: dict[int, tuple[int, ...]] = {}
    """Its levels are the autoencoder's, but for the widths of the network over neighbours in these (counted from 0)."""
    time: int = Field(default=32, ge=4)
    """Size of the embedded time, set beside features at every level."""


class SqueezeExcite(nn.Module):
    """Weighs channels [B, C] by all of them (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 8
        self.fc = nn.Sequential(
            nn.Linear(channels, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x)


class ResidualBlock(nn.Module):
    """Two linear maps with squeeze and excitation, told the time and, where ``told``, a condition."""

    def __init__(self, width: int, told: bool, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Linear(2 * width if told else width, width)
        self.conv2 = nn.Linear(width, width)
        self.SE = SqueezeExcite(width)
        self.dropout = 0.0 if told else dropout

    def forward(self, x: Tensor, time: Tensor, told: Tensor | None) -> Tensor:
        y = x + time
        y = F.relu(self.conv1(y if told is None else torch.cat([y, told], 1)))
        y = F.relu(self.conv2(F.dropout(y, self.dropout, self.training)))
        return x + self.SE(y)


class GlobalPrior(nn.Module):
    """The noise in ``z`` [B, D] at times ``t`` [B] up to 1000, told ``condition`` [B, C] where there is one.

    Published as 1x1 convolutions; the names are theirs.
    """

    def __init__(self, options: GlobalConfig, size: int, condition: int) -> None:
        super().__init__()
        o = options
        self.time, self.told = o.time, condition
        if condition:
            self.clip_feat_mapping = nn.Linear(condition, o.width)
        self.temb_layer = nn.Sequential(nn.Linear(o.time, 4 * o.time), nn.Linear(4 * o.time, o.width))
        self.input_layer = nn.Linear(size, o.width)
        blocks = (ResidualBlock(o.width, bool(condition), o.dropout) for _ in range(o.blocks))
        self.all_modules = nn.ModuleList(blocks)
        self.output_layer = nn.Linear(o.width, size)

    def forward(self, z: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        time = self.temb_layer(embedded_time(t, self.time))
        told = self.clip_feat_mapping(condition) if self.told else None
        x = self.input_layer(z)
        for block in self.all_modules:
            x = block(x, time, told)
        return self.output_layer(x)


class LocalPrior(PointUnet):
    """The noise in ``h`` [B, N, 3 + F] at times ``t`` [B] up to 1000, told ``z`` [B, D] by its norms, and ``condition``
    [B, C] merged into that."""

    def __init__(self, options: LocalConfig, unet: UnetConfig, features: int, size: int, condition: int) -> None:
        levels = [level.model_copy(update={"mlp": options.mlps.get(k, level.mlp)}) for k, level in enumerate(unet.down)]
        own = unet.model_copy(update={"down": tuple(levels)})
        super().__init__(own, features, 3 + features, size, options.time, condition)

    def forward(self, h: Tensor, t: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(h, z, t, condition)
