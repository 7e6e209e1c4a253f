"""The denoiser of MeshDiffusion: a 3D UNet over the cube that holds the grid, which is told which cells are vertices.

Ho et al. 2020's UNet with 3D convolutions, as in Liu et al. 2023, section 4.2. Seven of eight cells are no vertices:
the mask is an input, and multiplies input and output. ``fold`` moves the cells of small blocks into channels first: at
the sizes that a CPU affords, most of the work is then in channels and not in empty cells.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.generative.layers import SpaceAttention

VALUES = 4
"""Numbers of a vertex: the sign and the three offsets."""


class NetworkConfig(BaseConfig):
    """Sizes of the network."""

    layout: Literal["compact", "published"] = "compact"
    """How blocks follow one another: fewer of them, or as in the authors' checkpoints (`start`)."""

    channels: int = Field(default=48, ge=8, multiple_of=8)
    """Width of the finest level."""
    widths: list[int] = Field(default=[1, 2], min_length=1)
    """Width of each level, finest first, in `channels`."""
    blocks: int = Field(default=2, ge=1)
    """Residual blocks of each level."""
    attention: list[int] = [6]
    """Sides, in cells, at which cells attend to each other."""
    fold: int = Field(default=2, ge=1)
    """Side of the blocks of cells that become channels; 1 in the published layout."""
    kernel: Literal[3, 5] = 3
    """Side of the first and the last convolution in the published layout: 3 at resolution 64, 5 at 128."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """In residual blocks."""


class Block(nn.Module):
    """Two convolutions with a skip; time (and class) shift between them."""

    def __init__(self, channels: int, out: int, time: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, channels), nn.Conv3d(channels, out, 3, padding=1)
        self.shift = nn.Linear(time, out)
        self.norm2, self.drop, self.conv2 = nn.GroupNorm(8, out), nn.Dropout(dropout), nn.Conv3d(out, out, 3, padding=1)
        self.skip = nn.Conv3d(channels, out, 1) if channels != out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.shift(F.silu(time))[:, :, None, None, None]
        found: Tensor = self.conv2(self.drop(F.silu(self.norm2(h)))) + self.skip(x)
        return found


class Unet3d(nn.Module):
    """[B, 4, R, R, R] noisy cubes, timesteps [B] and classes [B] (-1: untold) to the network's answer, masked.

    Args:
        mask: [R, R, R], 1 in the cells that are vertices.  classes: how many there are.
    """

    mask: Tensor

    def __init__(self, o: NetworkConfig, mask: Tensor, classes: int) -> None:
        super().__init__()
        self.options, time = o, 4 * o.channels
        self.register_buffer("mask", mask.float(), persistent=False)
        widths = [o.channels * w for w in o.widths]
        side = len(mask) // o.fold
        self.time = Timesteps(o.channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embed = TimestepEmbedding(o.channels, time)
        self.label = nn.Embedding(classes + 1, time)
        # The published first layer is a sum of convolutions of the values and of the mask: one of both together.
        self.first = nn.Conv3d((VALUES + 1) * o.fold**3, widths[0], 3, padding=1)
        self.down: Any = nn.ModuleList()
        self.up: Any = nn.ModuleList()
        at = widths[0]
        for level, width in enumerate(widths):
            blocks = [Block(at if k == 0 else width, width, time, o.dropout) for k in range(o.blocks)]
            attend = SpaceAttention(width) if side >> level in o.attention else nn.Identity()
            last = level == len(widths) - 1
            smaller = nn.Identity() if last else nn.Conv3d(width, width, 3, 2, 1)
            self.down.append(nn.ModuleList([nn.ModuleList(blocks), attend, smaller]))
            at = width
        self.middle = nn.ModuleList(Block(at, at, time, o.dropout) for _ in range(2))
        for level, width in reversed(list(enumerate(widths))):
            blocks = [Block(at + width if k == 0 else width, width, time, o.dropout) for k in range(o.blocks)]
            larger = nn.Conv3d(width, width, 3, padding=1) if level else nn.Identity()
            self.up.append(nn.ModuleList([nn.ModuleList(blocks), larger]))
            at = width
        answer: Any = nn.Conv3d(at, VALUES * o.fold**3, 3, padding=1)
        nn.init.zeros_(answer.weight)
        nn.init.zeros_(answer.bias)
        self.last = nn.Sequential(nn.GroupNorm(8, at), nn.SiLU(), answer)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        mask = self.mask.expand(len(x), 1, -1, -1, -1)
        h = self.first(folded(torch.cat([x * mask, mask], 1), self.options.fold))
        time = self.embed(self.time(t).to(x)) + self.label(label + 1)
        kept = []
        for blocks, attend, smaller in self.down:
            for block in blocks:
                h = block(h, time)
            kept.append(h := attend(h))
            h = smaller(h)
        for block in self.middle:
            h = block(h, time)
        for blocks, larger in self.up:
            h = torch.cat([h, kept.pop()], 1)
            for block in blocks:
                h = block(h, time)
            if not isinstance(larger, nn.Identity):
                h = larger(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return unfolded(self.last(h), self.options.fold) * mask


def folded(x: Tensor, by: int) -> Tensor:
    """[B, C, R, R, R] with blocks of ``by``^3 cells as channels: [B, C by^3, R/by, R/by, R/by]."""
    b, c, r = x.shape[:3]
    blocks = x.view(b, c, r // by, by, r // by, by, r // by, by)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * by**3, *[r // by] * 3)


def unfolded(x: Tensor, by: int) -> Tensor:
    """The inverse of :func:`folded`."""
    b, c, r = x.shape[:3]
    blocks = x.view(b, c // by**3, by, by, by, r, r, r)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // by**3, *[r * by] * 3)
