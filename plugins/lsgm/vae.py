"""NVAE as LSGM has it (Vahdat et al. 2021, appendix G): groups of latents, each N(0, I) a priori.

The encoder goes down, the decoder starts from a learned constant at the coarsest resolution and takes in one group
after another; what a group is, is read from the encoder's features at that depth together with what the decoder has
made so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import Config
from plugins.lsgm.cells import Cell, Conv, DecoderCells, DecoderCombiner, EncoderCombiner
from plugins.lsgm.pixels import LEAST_LOG_SCALE, OUTPUTS, Output, Pixels

Noise = Callable[[tuple[int, ...]], Tensor]
"""Draws standard normal noise of a shape."""
_CLAMP = 5.0


class VaeConfig(Config):
    """The autoencoder."""

    channels: int = Field(default=32, ge=4, multiple_of=4)
    """Width at full resolution."""
    widths: tuple[int, ...] = (1, 2, 2)
    """Width at each resolution, the finest first, as a multiple of ``channels``; the last ``scales`` hold latents."""
    scales: int = Field(default=1, ge=1)
    """Resolutions that hold latents; the score model is over the coarsest, finer ones keep N(0, I)."""
    groups: int = Field(default=2, ge=1)
    """Groups of latents at each of these resolutions."""
    latent_channels: int = Field(default=8, ge=1)
    """Channels of a group."""
    outer_cells: int = Field(default=2, ge=1)
    """Cells at each resolution without latents, on the way down and on the way up."""
    encoder_cells: int = Field(default=1, ge=1)
    """Cells of the encoder for each group."""
    decoder_cells: int = Field(default=1, ge=1)
    """Cells of the decoder for each group."""
    decoder: DecoderCells = "residual"
    """What cells of the decoder are: two convolutions, or one inverted residual (MobileNet)."""
    squeeze_excite: bool = True
    """Whether cells weight their channels."""
    output: Output = "logistic"
    """Distribution of a pixel: a discretised logistic, or a mixture of ten of them."""
    least_log_scale: float = LEAST_LOG_SCALE
    """Lower bound of the log scales of pixels; a higher one leaves details out of the latents."""


@dataclass
class Posterior:
    """A group's latents given a picture: a diagonal Gaussian, all [B, L, h, w]."""

    mean: Tensor
    log_std: Tensor
    sample: Tensor

    def entropy(self) -> Tensor:
        """[B] nats, summed."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).flatten(1).sum(1)

    def unit_cross_entropy(self) -> Tensor:
        """[B] nats of the cross entropy with N(0, I), summed."""
        square = self.mean.square() + (2 * self.log_std).exp()
        return 0.5 * (square + math.log(2 * math.pi)).flatten(1).sum(1)

    def kl(self) -> Tensor:
        """[B] nats of the divergence from N(0, I)."""
        return self.unit_cross_entropy() - self.entropy()


class Vae(nn.Module):
    """Pictures [B, 3, S, S] in [-1, 1] to groups of latents and back.

    Args:
        options: its sizes.  size: S, which the resolutions must divide.
    """

    own_scale: Tensor
    """How far a pixel's scale is its own, see :class:`~plugins.lsgm.pixels.Pixels`."""

    def __init__(self, options: VaeConfig, size: int) -> None:
        super().__init__()
        self.options, self.size = options, size
        o, widths = options, [options.channels * m for m in options.widths]
        self.outer = len(widths) - o.scales
        self.side = size // 2 ** (len(widths) - 1)
        expand_inner, expand_outer = (6, 3) if o.decoder == "mobile" else (0, 0)
        self.register_buffer("own_scale", torch.ones(()))
        self.prior_ftr0 = nn.Parameter(torch.rand(widths[-1], self.side, self.side))
        self.stem = Conv(3, widths[0])
        self.pre_process = nn.ModuleList()
        for k in range(self.outer):
            self.pre_process += [self._cell(widths[k], widths[k]) for _ in range(o.outer_cells - 1)]
            self.pre_process.append(self._cell(widths[k], widths[k + 1], 2))
        self.enc_tower, self.enc_sampler = nn.ModuleList(), nn.ModuleList()
        self.dec_tower, self.eps_conv = nn.ModuleList(), nn.ModuleList()
        self._build_encoder(widths[self.outer :])
        self._build_decoder(widths[self.outer :][::-1], expand_inner)
        self.post_process = nn.ModuleList()
        for k in range(self.outer, 0, -1):
            self.post_process.append(self._cell(widths[k], widths[k - 1], -1, expand_outer))
            inner = [self._cell(widths[k - 1], widths[k - 1], 1, expand_outer) for _ in range(o.outer_cells - 1)]
            self.post_process += inner
        self.image_conditional = nn.Sequential(nn.ELU(), Conv(widths[0], OUTPUTS[o.output].channels))

    def _cell(self, inner: int, outer: int, stride: int = 1, expand: int = 0) -> Cell:
        return Cell(inner, outer, stride, expand, self.options.squeeze_excite)  # type: ignore[arg-type]

    def _build_encoder(self, widths: Sequence[int]) -> None:
        """From the finest resolution with latents to the coarsest."""
        o = self.options
        for s, width in enumerate(widths):
            for g in range(o.groups):
                self.enc_tower += [self._cell(width, width) for _ in range(o.encoder_cells)]
                if (s, g) != (len(widths) - 1, o.groups - 1):  # the last one goes to the first group as it is
                    self.enc_tower.append(EncoderCombiner(width))
            if s + 1 < len(widths):
                self.enc_tower.append(self._cell(width, widths[s + 1], 2))

    def _build_decoder(self, widths: Sequence[int], expand: int) -> None:
        """From the coarsest resolution to the finest one with latents."""
        o = self.options
        for s, width in enumerate(widths):
            for _ in range(o.groups):
                self.enc_sampler.append(nn.Sequential(nn.ELU(), Conv(width, 2 * o.latent_channels)))
                self.eps_conv.append(Conv(o.latent_channels, o.latent_channels))
                self.dec_tower.append(DecoderCombiner(width, o.latent_channels))
                self.dec_tower += [self._cell(width, width, 1, expand) for _ in range(o.decoder_cells)]
            if s + 1 < len(widths):
                self.dec_tower.append(self._cell(width, widths[s + 1], -1, expand))

    @property
    def top_channels(self) -> int:
        """Channels of the coarsest resolution's latents, groups side by side."""
        return self.options.groups * self.options.latent_channels

    def top(self, groups: Sequence[Tensor]) -> Tensor:
        """[B, groups L, h, w] the coarsest resolution's latents of a list of groups' [B, L, h, w]."""
        return torch.cat(list(groups[: self.options.groups]), 1)

    def forward(self, x: Tensor, noise: Noise) -> tuple[Pixels, list[Posterior]]:
        """The pixels' distribution given a sample of the posterior, and each group's posterior, the coarsest first."""
        seen = self._encode(x)
        posteriors: list[Posterior] = []

        def group(made: Tensor) -> Tensor:
            feature = seen[0] if not posteriors else seen[len(posteriors)][1](seen[len(posteriors)][0], made)
            posteriors.append(self._posterior(feature, len(posteriors), noise))
            return posteriors[-1].sample

        return self._decode(group, len(x)), posteriors

    def _encode(self, x: Tensor) -> list:  # type: ignore[type-arg]
        """The deepest feature, then pairs of feature and combiner, the deepest first."""
        x = self.stem(x)
        for cell in self.pre_process:
            x = cell(x)
        kept = []
        for cell in self.enc_tower:
            if isinstance(cell, EncoderCombiner):
                kept.append((x, cell))
            else:
                x = cell(x)
        return [x, *reversed(kept)]

    def _posterior(self, feature: Tensor, index: int, noise: Noise) -> Posterior:
        # Both are clamped softly, so that no sample is out of the score model's reach.
        clamped = _CLAMP * torch.tanh(self.enc_sampler[index](feature).float() / _CLAMP)
        mean, log_std = clamped.chunk(2, 1)
        return Posterior(mean, log_std, mean + log_std.exp() * noise(tuple(mean.shape)).to(mean))

    def _decode(self, group: Callable[[Tensor], Tensor], count: int) -> Pixels:
        made, index = self.prior_ftr0.expand(count, -1, -1, -1), 0
        for cell in self.dec_tower:
            if isinstance(cell, DecoderCombiner):
                made, index = cell(made, self.eps_conv[index](group(made))), index + 1
            else:
                made = cell(made)
        for cell in self.post_process:
            made = cell(made)
        return OUTPUTS[self.options.output](self.image_conditional(made), self.own_scale, self.options.least_log_scale)

    def decode(self, top: Tensor, noise: Noise) -> Pixels:
        """The pixels' distribution for latents [B, groups L, h, w]; finer groups are drawn from N(0, I)."""
        given = list(top.chunk(self.options.groups, 1))

        def group(made: Tensor) -> Tensor:
            if given:
                return given.pop(0)
            shape = (len(made), self.options.latent_channels, *made.shape[-2:])
            return noise(shape).to(made)

        return self._decode(group, len(top))
