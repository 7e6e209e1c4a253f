"""The autoencoder: a global latent of the shape, and latent points that are told it (Zeng et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import Config
from core.points.unet import DownConfig, PointEncoder, PointUnet, UnetConfig

Noise = Callable[[tuple[int, ...]], Tensor]
"""Draws N(0, I) of a shape, on the CPU."""


class VaeConfig(Config):
    """Sizes of the autoencoder."""

    size: int = Field(default=32, ge=1)
    """Numbers of the global latent."""
    features: int = Field(default=1, ge=1)
    """Numbers of a latent point beside its coordinates."""
    shape: tuple[DownConfig, ...] = (
        DownConfig(channels=16, resolution=8, centers=64, radius=0.8, neighbours=16, mlp=(16, 32)),
        DownConfig(channels=32, resolution=4, centers=16, radius=1.6, neighbours=16, mlp=(32, 64)),
    )
    """Levels of the global latent's encoder."""
    unet: UnetConfig = UnetConfig()
    """Network of the latent points' encoder and, once more, of the decoder."""
    skip: float = Field(default=0.01, gt=0)
    """Share of a network's answer in coordinates, beside the coordinates that it is given."""
    offset: float = 6.0
    """Taken off the logarithm of latent points' deviations, which start at about exp(-6)."""
    normals: bool = False
    """Whether the decoder gives each point's normal too, for surfaces; the published one does not."""


@dataclass
class Posterior:
    """A diagonal Gaussian and a draw of it; all [B, ...].

    Attributes:
        mean, log_std: of each number.  sample: the draw.
    """

    mean: Tensor
    log_std: Tensor
    sample: Tensor

    @classmethod
    def draw(cls, mean: Tensor, log_std: Tensor, noise: Noise) -> Posterior:
        """Reparametrised: differentiable in mean and deviation."""
        return cls(mean, log_std, mean + log_std.exp() * noise(tuple(mean.shape)).to(mean))

    def kl(self) -> Tensor:
        """[B] nats from N(0, I)."""
        each = 0.5 * (self.mean.square() + (2 * self.log_std).exp() - 1) - self.log_std
        return each.flatten(1).sum(1)


@dataclass
class Decoded:
    """What latents stand for.

    Attributes:
        points: [B, N, 3], in the order of the latent points.  normals: [B, N, 3] unit, or None.
    """

    points: Tensor
    normals: Tensor | None


class _Layers(nn.Module):
    """One network under the published name."""

    def __init__(self, layers: PointUnet) -> None:
        super().__init__()
        self.layers = layers


class PointVae(nn.Module):
    """Points [B, N, 3] of unit deviation to ``z`` [B, D] and ``h`` [B, N, 3 + F], and back.

    Latent points start as the points themselves with hardly any noise, and the decoder as the identity; the weight of
    the divergence, which rises in training, is what makes them forget (section 3.1 and appendix D).

    Args:
        hierarchical: False has no global latent: ``z`` is zeros, for comparisons.
    """

    def __init__(self, options: VaeConfig, hierarchical: bool = True) -> None:
        super().__init__()
        o = options
        self.size, self.features, self.skip, self.offset = o.size, o.features, o.skip, o.offset
        self.style_encoder = PointEncoder(o.shape, 2 * o.size, o.unet.dropout) if hierarchical else None
        self.encoder = _Layers(PointUnet(o.unet, 0, 6 + 2 * o.features, o.size))
        self.decoder = _Layers(PointUnet(o.unet, o.features, 6 if o.normals else 3, o.size))

    def encode_shape(self, points: Tensor, noise: Noise) -> Posterior:
        """``z`` of points [B, N, 3]."""
        if self.style_encoder is None:
            zeros = points.new_zeros(len(points), self.size)
            return Posterior(zeros, zeros, zeros)
        mean, log_std = self.style_encoder(points).chunk(2, 1)
        return Posterior.draw(mean, log_std, noise)

    def encode_points(self, points: Tensor, z: Tensor, noise: Noise) -> Posterior:
        """``h`` of points [B, N, 3], told ``z`` [B, D]."""
        out = self.encoder.layers(points, z)
        at, at_std, mean, log_std = out.split([3, 3, self.features, self.features], -1)
        return Posterior.draw(
            torch.cat([points + self.skip * at, mean], -1), torch.cat([at_std, log_std], -1) - self.offset, noise
        )

    def decode(self, h: Tensor, z: Tensor) -> Decoded:
        """Points of latents ``h`` [B, N, 3 + F] and ``z`` [B, D]."""
        out = self.decoder.layers(h, z)
        normals = F.normalize(out[..., 3:], dim=-1, eps=1e-6) if out.shape[-1] > 3 else None
        return Decoded(h[..., :3] + self.skip * out[..., :3], normals)

    def forward(self, points: Tensor, noise: Noise) -> tuple[Decoded, Posterior, Posterior]:
        """Reconstructed points, and the posteriors of ``z`` and ``h``."""
        shape = self.encode_shape(points, noise)
        latent = self.encode_points(points, shape.sample, noise)
        return self.decode(latent.sample, shape.sample), shape, latent
