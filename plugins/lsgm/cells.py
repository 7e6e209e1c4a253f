"""The cells that NVAE is made of (Vahdat & Kautz 2020, figure 3), as LSGM uses them.

Modules bear the names of published checkpoints, so that those load as they are (``checkpoint.py``).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stride = Literal[1, 2, -1]
"""Of a cell: 1 keeps the resolution, 2 halves it, -1 doubles it."""
DecoderCells = Literal["residual", "mobile"]


class Conv(nn.Conv2d):
    """A convolution with weight normalisation: each filter has a direction and a learned log length."""

    def __init__(self, inner: int, outer: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inner, outer, kernel, stride, (kernel - 1) // 2)
        self.log_weight_norm = nn.Parameter((self._length() + 1e-2).log().detach())

    def _length(self) -> Tensor:
        return self.weight.square().sum((1, 2, 3), keepdim=True).sqrt()

    @property
    def effective(self) -> Tensor:
        """The filters as they are applied."""
        return self.log_weight_norm.exp() * self.weight / (self._length() + 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.effective, self.bias, self.stride, self.padding)


class BatchNormSwish(nn.BatchNorm2d):
    """Batch norm and swish."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.05)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


class BNSwishConv(nn.Module):
    """Batch norm, swish, 3x3 convolution."""

    def __init__(self, inner: int, outer: int, stride: Stride) -> None:
        super().__init__()
        self.up = stride == -1
        self.bn_act = BatchNormSwish(inner)
        self.conv_0 = Conv(inner, outer, 3, abs(stride))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_act(x)
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return torch.as_tensor(self.conv_0(x))


class ConvBNSwish(nn.Module):
    """Convolution without weight normalisation, batch norm, swish."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        convolution = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.conv = nn.Sequential(convolution, BatchNormSwish(outer))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.conv(x))


class InvertedResidual(nn.Module):
    """The MobileNet branch of decoders: expand, depthwise 5x5, contract, each with batch norm."""

    def __init__(self, inner: int, outer: int, stride: Stride, expand: int) -> None:
        super().__init__()
        hidden = inner * expand
        self.conv = nn.Sequential(
            *([nn.UpsamplingNearest2d(scale_factor=2)] if stride == -1 else []),
            nn.BatchNorm2d(inner, momentum=0.05),
            ConvBNSwish(inner, hidden, 1),
            ConvBNSwish(hidden, hidden, 5, abs(stride), hidden),
            nn.Conv2d(hidden, outer, 1, bias=False),
            nn.BatchNorm2d(outer, momentum=0.05),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.conv(x))


class SqueezeExcite(nn.Module):
    """Each channel is multiplied by a factor that depends on the mean of all (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.se = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.se(x.mean((2, 3)))[..., None, None]


class FactorizedReduce(nn.Module):
    """The skip of a cell that halves: four 1x1 convolutions, each on another quarter of the places."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        quarter = outer // 4
        for k in range(1, 5):
            self.add_module(f"conv_{k}", Conv(inner, quarter if k < 4 else outer - 3 * quarter, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(x)
        places = {"conv_1": x, "conv_2": x[..., 1:, 1:], "conv_3": x[..., 1:], "conv_4": x[..., 1:, :]}
        return torch.cat([self.get_submodule(name)(at) for name, at in places.items()], 1)


class Upsample(nn.Module):
    """Bilinear, corners aligned."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class Cell(nn.Module):
    """A residual cell: ``skip(x) + 0.1 branch(x)``.

    Args:
        expand: 0 makes the branch of two batch norm, swish, convolution; else of one inverted residual that widens
            ``expand`` times.
    """

    def __init__(self, inner: int, outer: int, stride: Stride = 1, expand: int = 0, squeeze: bool = True) -> None:
        super().__init__()
        skips: dict[int, Any] = {1: nn.Identity, 2: lambda: FactorizedReduce(inner, outer),
                                 -1: lambda: nn.Sequential(Upsample(), Conv(inner, outer, 1))}  # fmt: skip
        self.skip = skips[stride]()
        branch: list[nn.Module]
        if expand:
            branch = [InvertedResidual(inner, outer, stride, expand)]
        else:
            branch = [BNSwishConv(inner, outer, stride), BNSwishConv(outer, outer, 1)]
        self._ops = nn.ModuleList(branch)
        self.se = SqueezeExcite(outer) if squeeze else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for op in self._ops:
            branch = op(branch)
        return torch.as_tensor(self.skip(x) + 0.1 * self.se(branch))


class EncoderCombiner(nn.Module):
    """What the encoder saw, plus what the decoder has made of the groups before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, 1)

    def forward(self, seen: Tensor, made: Tensor) -> Tensor:
        return torch.as_tensor(seen + self.conv(made))


class DecoderCombiner(nn.Module):
    """The decoder's features and a group of latents beside them, through a 1x1 convolution."""

    def __init__(self, channels: int, latents: int) -> None:
        super().__init__()
        self.conv = Conv(channels + latents, channels, 1)

    def forward(self, made: Tensor, latents: Tensor) -> Tensor:
        return torch.as_tensor(self.conv(torch.cat([made, latents], 1)))
