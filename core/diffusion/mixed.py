"""The mixed score: a score model that starts as that of N(0, I) and learns where latents differ from it.

``noise(z_t, t) = (1 - w) unit(z_t, t) + w network(z_t, t)``, ``w = sigmoid(logit)`` with a logit of its own for each
channel (Vahdat et al. 2021, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.diffusion.sde import SDE

PINNED = -15.0
"""Logit of a channel that carries nothing."""


class MixedScore(nn.Module):
    """Predicts the noise in latents [B, ...] at times [B] in [0, 1].

    Args:
        network: ``network(z_t, 1000 t, *told)`` gives the noise, of the latents' shape; ``told`` is what the mixture is
            called with beside latents and times.
        sde: says what the best prediction were for N(0, I).
        channels: how many channels the latents have; each has its logit.
        axis: which axis they are, counted in [B, ...].
        dims: axes of the latents, B counted: 4 for maps [B, C, h, w], 2 for vectors [B, C], 3 for points [B, N, C].
        logit: initial value, -6 or -3 as published; None mixes nothing: the network alone, without logits.
    """

    active: Tensor

    def __init__(
        self, network: nn.Module, sde: SDE, channels: int, *, axis: int = 1, dims: int = 4, logit: float | None = -6.0
    ) -> None:
        super().__init__()
        self.network, self.sde = network, sde
        shape = [1] * dims
        shape[axis] = channels
        self.logit = None if logit is None else nn.Parameter(torch.full(shape, logit))
        self.register_buffer("active", torch.ones(shape))

    @property
    def share(self) -> Tensor:
        """The network's share in each channel, [1, C, 1, 1] in (0, 1); that of pinned channels next to nothing."""
        if self.logit is None:
            return torch.ones_like(self.active)
        return torch.sigmoid(torch.where(self.active > 0, self.logit, torch.full_like(self.logit, PINNED)))

    def forward(self, z_t: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
        output: Tensor = self.network(z_t * self.active.to(z_t), 1000 * t, *told)
        if self.logit is None:
            return output
        return torch.lerp(self.sde.unit_noise(z_t, t), output.to(z_t), self.share.to(z_t))

    @torch.no_grad()
    def pin(self, active: Tensor) -> None:
        """Leave channels that carry nothing (no divergence from the prior over the data) to N(0, I).

        Args:
            active: [C] bool; the network does not see the others.

        Raises:
            ValueError: there are no logits: the network alone answers for every channel.
        """
        if self.logit is None:
            raise ValueError("a score model without a mixture cannot leave a channel to N(0, I)")
        self.active.copy_(active.to(self.active).view(self.active.shape))
