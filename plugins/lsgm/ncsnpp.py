"""NCSN++ (Song et al. 2021, appendix H) as LSGM's score model has it: a UNet of BigGAN blocks over a map of latents.

Modules are one list in the order of published checkpoints, walked through by a plan.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config

_TIME = 128


class ScoreConfig(Config):
    """The score model's network."""

    channels: int = Field(default=48, ge=4, multiple_of=4)
    """Width at the latents' own resolution."""
    widths: tuple[int, ...] = (1, 1)
    """Width at each resolution, the finest first, as a multiple of ``channels``; each further one halves."""
    blocks: int = Field(default=2, ge=1)
    """Residual blocks at each resolution, on the way down."""
    attention: tuple[int, ...] = (4,)
    """Sides in latents at which there is attention; at the coarsest there always is."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of features that training leaves out."""
    fir: bool = False
    """Whether changes of resolution are smoothed by the kernel (1, 3, 3, 1)."""


def initialise(weight: Tensor, scale: float = 1.0) -> Tensor:
    """Fill in place: uniform, of variance ``scale`` over the mean of fan-in and fan-out; next to zero for scale 0."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    bound = math.sqrt(3 * max(scale, 1e-10) * 2 / (fan_in + fan_out))
    return nn.init.uniform_(weight, -bound, bound)


def conv(inner: int, outer: int, kernel: int = 3, scale: float = 1.0) -> nn.Conv2d:
    """A convolution with the initial values above and no bias at first."""
    made = nn.Conv2d(inner, outer, kernel, padding=kernel // 2)
    initialise(made.weight.data, scale)
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


def dense(inner: int, outer: int) -> nn.Linear:
    """A linear layer with the initial values above and no bias at first."""
    made = nn.Linear(inner, outer)
    initialise(made.weight.data)
    nn.init.zeros_(made.bias)
    return made


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of at least four channels, 32 at most."""
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class Pointwise(nn.Module):
    """A 1x1 convolution; its weight is [in, out]."""

    def __init__(self, channels: int, scale: float = 0.1) -> None:
        super().__init__()
        self.W = nn.Parameter(initialise(torch.empty(channels, channels), scale))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


class Attention(nn.Module):
    """Self-attention of one head over all places of a map, with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2 = (Pointwise(channels) for _ in range(3))
        self.NIN_3 = Pointwise(channels, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.NIN_0, self.NIN_1, self.NIN_2))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + self.NIN_3(h)) / math.sqrt(2)


class Block(nn.Module):
    """A residual block told the time; ``change`` 2 doubles the resolution, 0.5 halves it."""

    def __init__(self, inner: int, outer: int, dropout: float, change: float = 1.0, fir: bool = False) -> None:
        super().__init__()
        self.change, self.fir = change, fir
        self.GroupNorm_0, self.Conv_0 = group_norm(inner), conv(inner, outer)
        self.Dense_0 = dense(4 * _TIME, outer)
        self.GroupNorm_1, self.Dropout_0 = group_norm(outer), nn.Dropout(dropout)
        self.Conv_1 = conv(outer, outer, scale=0.0)
        if inner != outer or change != 1:
            self.Conv_2 = conv(inner, outer, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = F.silu(self.GroupNorm_0(x))
        if self.change != 1:
            h, x = (resample(part, self.change, self.fir) for part in (h, x))
        h = self.Conv_0(h) + self.Dense_0(F.silu(told))[..., None, None]
        h = self.Conv_1(self.Dropout_0(F.silu(self.GroupNorm_1(h))))
        skip = self.Conv_2(x) if hasattr(self, "Conv_2") else x
        return (skip + h) / math.sqrt(2)


def resample(x: Tensor, change: float, fir: bool) -> Tensor:
    """[B, C, H, W] at twice or half the resolution; by the kernel (1, 3, 3, 1), or by repeating and averaging."""
    if not fir:
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if change > 1 else F.avg_pool2d(x, 2)
    line = x.new_tensor([1.0, 3.0, 3.0, 1.0])
    kernel = (line[:, None] * line / line.sum() ** 2).expand(x.shape[1], 1, 4, 4)
    if change > 1:
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=x.shape[1])
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Ncsnpp(nn.Module):
    """Maps [B, C, S, S] at times [B] (0 to 1000) to maps of the same shape.

    Args:
        options: its sizes.  channels: C.  side: S.
    """

    def __init__(self, options: ScoreConfig, channels: int, side: int) -> None:
        super().__init__()
        self.options = options
        self.all_modules = nn.ModuleList([dense(_TIME, 4 * _TIME), dense(4 * _TIME, 4 * _TIME)])
        self.plan: list[str] = []
        o, widths = options, [options.channels * m for m in options.widths]
        sides = [side // 2**k for k in range(len(widths))]
        self._add("enter", conv(channels, widths[0]))
        kept, width = [widths[0]], widths[0]
        for k, outer in enumerate(widths):
            for _ in range(o.blocks):
                self._add("block", self._block(width, outer))
                if sides[k] in o.attention:
                    self._add("attention", Attention(outer))
                self.plan.append("keep")
                width = outer
                kept.append(width)
            if k + 1 < len(widths):
                self._add("block", self._block(width, width, 0.5))
                self.plan.append("keep")
                kept.append(width)
        for kind in ("block", "attention", "block"):
            self._add(kind, Attention(width) if kind == "attention" else self._block(width, width))
        for k in reversed(range(len(widths))):
            for _ in range(o.blocks + 1):
                self.plan.append("join")
                self._add("block", self._block(width + kept.pop(), widths[k]))
                width = widths[k]
            if sides[k] in o.attention:
                self._add("attention", Attention(width))
            if k:
                self._add("block", self._block(width, width, 2.0))
        self._add("leave", group_norm(width))
        self._add("answer", conv(width, channels, scale=0.0))

    def _block(self, inner: int, outer: int, change: float = 1.0) -> Block:
        return Block(inner, outer, self.options.dropout, change, self.options.fir)

    def _add(self, kind: str, module: nn.Module) -> None:
        self.plan.append(kind)
        self.all_modules.append(module)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        modules: Any = iter(self.all_modules)
        first, second = next(modules), next(modules)
        told = second(F.silu(first(get_timestep_embedding(t, _TIME, downscale_freq_shift=1))))
        kept: list[Tensor] = []
        for kind in self.plan:
            if kind == "keep":
                kept.append(x)
            elif kind == "join":
                x = torch.cat([x, kept.pop()], 1)
            elif kind == "block":
                x = next(modules)(x, told)
            else:
                x = next(modules)(x)
                if kind == "enter":
                    kept.append(x)
                elif kind == "leave":
                    x = F.silu(x)
        return x
