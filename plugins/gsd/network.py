"""The denoiser: a transformer over the set, told the time and the class by adaLN-Zero (Peebles & Xie 2023, "DiT")."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_timestep_embedding
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from plugins.gsd.tokens import WIDTH

_FREQUENCIES = 128


class DitConfig(BaseConfig):
    """Its sizes."""

    width: int = Field(default=96, ge=8)
    """Numbers of a token inside."""
    depth: int = Field(default=4, ge=1)
    """Blocks."""
    heads: int = Field(default=4, ge=1)
    """Heads of attention; `width` is a multiple of it."""
    mlp: int = Field(default=4, ge=1)
    """Width of a block's perceptron, in multiples of `width`."""


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[B, H, K, D] of queries, keys and values of that shape.

    PyTorch's own kernel takes five times as long on a CPU in bfloat16 as these two products of matrices.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm whose shift, scale and gate the condition gives; gates start at
    0, so that a block starts as the identity."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp * width), nn.GELU(), nn.Linear(mlp * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Tokens [B, K, D] under ``told`` [B, D]."""
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(F.silu(told))[:, None].chunk(6, -1)
        x = x + gate * self._attended(_modulated(x, shift, scale))
        return x + gate_2 * self.mlp(_modulated(x, shift_2, scale_2))

    def _attended(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(attention(q, k, v).transpose(1, 2).flatten(2))


class SetDit(nn.Module):
    """No token knows its place in the set: the answer is permuted as the set is.

    Args:
        classes: how many there are; one more row stands for "nothing is told".
    """

    def __init__(self, config: DitConfig, classes: int) -> None:
        super().__init__()
        width = config.width
        self.enter = nn.Linear(WIDTH, width)
        self.time = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.classes.weight, std=0.02)
        self.blocks = nn.ModuleList([Block(width, config.heads, config.mlp) for _ in range(config.depth)])
        self.modulation, self.leave = nn.Linear(width, 2 * width), nn.Linear(width, WIDTH)
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The raw answer [B, K, 16] at noisy tokens ``x`` [B, K, 16], timesteps [B], classes [B]."""
        told = self.time(get_timestep_embedding(t, _FREQUENCIES, flip_sin_to_cos=True)) + self.classes(label)
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, told)
        shift, scale = self.modulation(F.silu(told))[:, None].chunk(2, -1)
        answer: Tensor = self.leave(_modulated(x, shift, scale))
        return answer

    def untold(self, count: int) -> Tensor:
        """[count] the class that says nothing."""
        return torch.full((count,), self.classes.num_embeddings - 1, device=self.classes.weight.device)
