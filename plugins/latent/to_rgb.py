"""Material ``latent-to-rgb``: a scene of latents turned into one of colours (Metzer et al. 2023, section 3.3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from core.config.base import Config as BaseConfig
from core.contracts import Context
from plugins.latent.latent import Latent


class LatentToRgb(Latent):
    """sRGB = latent A + b, clipped to [0, 1]; A and b start as the least-squares map of the prior and are learned."""

    latent = False

    class Config(BaseConfig):
        """Options."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        first = self.to_rgb
        del self.to_rgb
        self.to_rgb = nn.Parameter(first)

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.to_rgb]}]

    def picture(self, latent: Tensor) -> Tensor | None:
        return None
