"""Distributions of 8-bit pixels given a decoder's output (Salimans et al. 2017, "PixelCNN++"; pictures in [-1, 1])."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Output = Literal["logistic", "mixture"]
MIXTURE = 10
"""Components of the mixture."""
_LEVELS = 255.0
LEAST_LOG_SCALE = -7.0
"""Of pixels, whose values reach from -1 to 1; as published."""


class Pixels(ABC):
    """The distribution of pictures [B, 3, H, W] whose values are multiples of 2/255 from -1 to 1.

    Log scales are a picture's mean of them plus ``own_scale`` times each value's deviation from it. At 0 all values of
    a picture share one scale, which their error sets (Rybkin et al. 2021, "Simple and Effective VAE Training with
    Calibrated Decoders"), and the mean learns as under a squared error. At 1 every value has its own. Where a flat
    background is easily predicted that is a trap early on: scales become small there and large on the object, so nearly
    all of the mean's gradient comes from the background, and the object stays grey.
    """

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """[B] nats, summed over a picture."""

    @abstractmethod
    def mean(self) -> Tensor:
        """[B, 3, H, W] the picture to show."""


class Logistic(Pixels):
    """A discretised logistic distribution for each value: means and log scales [B, 6, H, W]."""

    channels = 6

    def __init__(self, output: Tensor, own_scale: float | Tensor = 1.0, least: float = LEAST_LOG_SCALE) -> None:
        self._mean, log_scale = output.float().chunk(2, 1)
        self.log_scale = _log_scales(log_scale, own_scale, least)

    def log_prob(self, x: Tensor) -> Tensor:
        return log_probability(x, self._mean, self.log_scale).flatten(1).sum(1)

    def mean(self) -> Tensor:
        return self._mean.clamp(-1, 1)


class Mixture(Pixels):
    """A mixture of ten, in which green depends on red and blue on both, linearly: [B, 100, H, W]."""

    channels = 10 * MIXTURE

    def __init__(self, output: Tensor, own_scale: float | Tensor = 1.0, least: float = LEAST_LOG_SCALE) -> None:
        batch, _, height, width = output.shape
        self.logits = output[:, :MIXTURE].float()
        rest = output[:, MIXTURE:].float().view(batch, 3, 3 * MIXTURE, height, width)
        self.means, log_scale, slopes = rest.split(MIXTURE, 2)
        self.log_scale, self.slopes = _log_scales(log_scale, own_scale, least), slopes.tanh()

    def log_prob(self, x: Tensor) -> Tensor:
        x = x[:, :, None].expand(-1, -1, MIXTURE, -1, -1)
        red, green, blue = self.means.unbind(1)
        on_red, on_both, on_green = self.slopes.unbind(1)
        green = green + on_red * x[:, 0]
        blue = blue + on_both * x[:, 0] + on_green * x[:, 1]
        each = log_probability(x, torch.stack([red, green, blue], 1), self.log_scale).sum(1)
        return torch.logsumexp(each + F.log_softmax(self.logits, 1), 1).flatten(1).sum(1)

    def mean(self) -> Tensor:
        share = self.logits.softmax(1)[:, None]
        red, green, blue = (self.means * share).sum(2).unbind(1)
        on_red, on_both, on_green = (self.slopes * share).sum(2).unbind(1)
        red = red.clamp(-1, 1)
        green = (green + on_red * red).clamp(-1, 1)
        return torch.stack([red, green, (blue + on_both * red + on_green * green).clamp(-1, 1)], 1)


OUTPUTS: dict[str, type[Logistic] | type[Mixture]] = {"logistic": Logistic, "mixture": Mixture}


def _log_scales(each: Tensor, own: float | Tensor, least: float) -> Tensor:
    """Log scales [B, ...] between their mean over a picture (``own`` 0) and what they are (1), not below ``least``."""
    shared = each.flatten(1).mean(1).view(-1, *[1] * (each.dim() - 1))
    return (shared + own * (each - shared)).clamp(min=least)


def log_probability(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Nats of each value: the logistic's mass within half a level of it, all that lies beyond for the two ends."""
    centred, sharp = x - mean, (-log_scale).exp()
    upper, lower, middle = sharp * (centred + 1 / _LEVELS), sharp * (centred - 1 / _LEVELS), sharp * centred
    mass = upper.sigmoid() - lower.sigmoid()
    # Far from the mean the mass vanishes in float32: there the density at the middle times the width stands for it.
    density = middle - log_scale - 2 * F.softplus(middle) - math.log(_LEVELS / 2)
    inside = torch.where(mass > 1e-5, mass.clamp(min=1e-10).log(), density)
    first, last = F.logsigmoid(upper), -F.softplus(lower)
    return torch.where(x < -0.999, first, torch.where(x > 0.999, last, inside))


def levels(rgb: Tensor) -> Tensor:
    """[B, H, W, 3] in [0, 1] as [B, 3, H, W] in [-1, 1], rounded to 8 bits."""
    return (rgb.permute(0, 3, 1, 2) * _LEVELS).round().contiguous() / (_LEVELS / 2) - 1


def bits_per_value(nats: float, shape: tuple[int, ...]) -> float:
    """Nats of a picture [3, H, W] in bits per dimension."""
    return nats / (math.log(2) * math.prod(shape))
