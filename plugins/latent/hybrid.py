"""Material ``hybrid-latent``: colours and a prior's latents side by side.

Guidance sees the latents, as with ``latent``; losses on pictures, meshes and people see colours of their own, which
need no decoder (as threestudio's hybrid material).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.contracts import Context
from core.errors import UserError
from plugins.latent.latent import Latent


class HybridLatent(Latent):
    """The first three features are the colour through a sigmoid, the others the latents as they are."""

    class Config(BaseConfig):
        """Options."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.feature_channels += 3

    def _checked(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self.feature_channels:
            raise UserError(
                f"material hybrid-latent reads {self.feature_channels} features (3 of colour, the rest the prior's "
                f"latents) and the geometry gives {features.shape[-1]}; set geometry.channels={self.feature_channels}"
            )
        return features

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        return torch.sigmoid(self._checked(features)[:, :3])

    def latents(self, features: Tensor) -> Tensor:
        return self._checked(features)[:, 3:]

    def picture(self, latent: Tensor) -> Tensor | None:
        return None
