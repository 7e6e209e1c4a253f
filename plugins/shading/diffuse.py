"""Material ``diffuse``: albedo under a point light and ambient light (Poole et al. 2022, section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Material


class Diffuse(Material):
    """sRGB = albedo (ambient + light max(0, n . l)), clipped at 1; albedo = sigmoid(features[:3])."""

    needs_normal = True

    class Config(BaseConfig):
        ambient: float = Field(0.4, ge=0, le=1)
        """Light from everywhere."""
        light: float = Field(0.6, ge=0)
        """Strength of the point light."""

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        return (torch.sigmoid(features[:, :3]) * self.shade(points, directions, normals, light)).clamp(max=1)

    def shade(self, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None) -> Tensor:
        """[N, 1] received light; without a light position it comes from the camera, without normals it is 1."""
        if normals is None:
            return torch.ones_like(points[:, :1])
        towards = -directions if light is None else F.normalize(light - points, dim=-1)
        cosine = (normals * towards).sum(-1, keepdim=True).clamp(min=0)
        return self.options.ambient + self.options.light * cosine

    def param_groups(self) -> list[dict[str, Any]]:
        return []
