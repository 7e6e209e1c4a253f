"""The denoiser of MeshDiffusion as published: Ho et al. 2020's UNet in 3D, laid out as Song et al. 2021's code has it.

Modules are one list in the order of published checkpoints, walked through by a plan. Against the compact network of
:mod:`plugins.mesh_diffusion.unet`: norms of 32 groups, attention after every block of its resolution and in the middle,
one block more a level on the way up, where features from every block on the way down are joined in, and a stride that
is padded behind only.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn
from torch.nn import functional as F

from plugins.mesh_diffusion.unet import VALUES, NetworkConfig

_GROUPS = 32


def _set(layer: nn.Conv3d | nn.Linear, scale: float = 1.0) -> None:
    """Uniform weights of variance ``scale`` over the mean of fan-in and fan-out; no bias."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(max(scale, 1e-10)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _conv(inner: int, outer: int, kernel: int = 3, scale: float = 1.0) -> nn.Conv3d:
    made = nn.Conv3d(inner, outer, kernel, padding=kernel // 2)
    _set(made, scale)
    return made


def _dense(inner: int, outer: int) -> nn.Linear:
    made = nn.Linear(inner, outer)
    _set(made)
    return made


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=1e-6)


class Pointwise(nn.Module):
    """A 1x1x1 convolution; its weight is [in, out]."""

    def __init__(self, inner: int, outer: int, scale: float = 0.1) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(inner, outer))
        nn.init.xavier_uniform_(self.W, gain=math.sqrt(max(scale, 1e-10)))
        self.b = nn.Parameter(torch.zeros(outer))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bcxyz,cd->bdxyz", x, self.W) + self.b[:, None, None, None]


class Attention(nn.Module):
    """Self-attention of one head over all cells, with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2 = (Pointwise(channels, channels) for _ in range(3))
        self.NIN_3 = Pointwise(channels, channels, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.NIN_0, self.NIN_1, self.NIN_2))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return torch.as_tensor(x + self.NIN_3(h))


class Block(nn.Module):
    """Two convolutions with a skip; the time shifts between them."""

    def __init__(self, inner: int, outer: int, time: int, dropout: float) -> None:
        super().__init__()
        self.GroupNorm_0, self.Conv_0 = _norm(inner), _conv(inner, outer)
        self.Dense_0 = _dense(time, outer)
        self.GroupNorm_1, self.Dropout_0 = _norm(outer), nn.Dropout(dropout)
        self.Conv_1 = _conv(outer, outer, scale=0.0)
        if inner != outer:
            self.NIN_0 = Pointwise(inner, outer)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = self.Conv_0(F.silu(self.GroupNorm_0(x))) + self.Dense_0(F.silu(told))[:, :, None, None, None]
        h = self.Conv_1(self.Dropout_0(F.silu(self.GroupNorm_1(h))))
        return torch.as_tensor((self.NIN_0(x) if hasattr(self, "NIN_0") else x) + h)


class Smaller(nn.Module):
    """Half the resolution by a stride, padded behind only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv3d(channels, channels, 3, 2)
        _set(self.Conv_0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.Conv_0(F.pad(x, (0, 1) * 3)))


class Larger(nn.Module):
    """Twice the resolution: cells are repeated, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv_0 = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.Conv_0(F.interpolate(x, scale_factor=2.0, mode="nearest")))


class Ddpm3d(nn.Module):
    """[B, 4, R, R, R] noisy cubes, timesteps [B] and classes [B] (-1: untold) to the network's answer, masked.

    The published networks know no classes; here an embedding of the class, zero at first, is added to that of the time.

    Args:
        o: its sizes.  mask: [R, R, R], 1 in the cells that are vertices.  classes: how many there are.
    """

    mask: Tensor

    def __init__(self, o: NetworkConfig, mask: Tensor, classes: int) -> None:
        super().__init__()
        self.options, self._time_width = o, 4 * o.channels
        self.register_buffer("mask", mask.float(), persistent=False)
        self.time = Timesteps(o.channels, flip_sin_to_cos=False, downscale_freq_shift=1)
        self.label = nn.Embedding(classes + 1, self._time_width)
        nn.init.zeros_(self.label.weight)
        self.mask_layer = _conv(1, o.channels, o.kernel)
        self.all_modules = nn.ModuleList([_dense(o.channels, self._time_width)])
        self.all_modules.append(_dense(self._time_width, self._time_width))
        self.all_modules.append(_conv(VALUES, o.channels, o.kernel))
        self.plan: list[str] = []
        widths, sides = [o.channels * w for w in o.widths], [len(mask) >> k for k in range(len(o.widths))]
        width, kept = o.channels, [o.channels]
        for k, outer in enumerate(widths):
            for _ in range(o.blocks):
                self._add("block", self._block(width, outer))
                width = outer
                self._attend(width, sides[k])
                self.plan.append("keep")
                kept.append(width)
            if k + 1 < len(widths):
                self._add("resample", Smaller(width))
                self.plan.append("keep")
                kept.append(width)
        self._add("block", self._block(width, width))
        self._add("attention", Attention(width))
        self._add("block", self._block(width, width))
        for k, outer in reversed(list(enumerate(widths))):
            for _ in range(o.blocks + 1):
                self.plan.append("join")
                self._add("block", self._block(width + kept.pop(), outer))
                width = outer
            self._attend(width, sides[k])
            if k:
                self._add("resample", Larger(width))
        self.all_modules.append(_norm(width))
        self.all_modules.append(_conv(width, VALUES, o.kernel, 0.0))

    def _add(self, kind: str, module: nn.Module) -> None:
        self.plan.append(kind)
        self.all_modules.append(module)

    def _attend(self, width: int, side: int) -> None:
        if side in self.options.attention:
            self._add("attention", Attention(width))

    def _block(self, inner: int, outer: int) -> Block:
        return Block(inner, outer, self._time_width, self.options.dropout)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        first, second, enter, *walked = self.all_modules
        norm, leave = walked[-2:]
        told = second(F.silu(first(self.time(t).to(x)))) + self.label(label + 1)
        h = enter(x * self.mask) + self.mask_layer(self.mask[None, None])
        kept, modules = [h], iter(walked)
        for kind in self.plan:
            if kind == "keep":
                kept.append(h)
            elif kind == "join":
                h = torch.cat([h, kept.pop()], 1)
            else:
                h = next(modules)(h, told) if kind == "block" else next(modules)(h)
        return torch.as_tensor(leave(F.silu(norm(h))) * self.mask)
