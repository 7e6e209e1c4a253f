"""Material ``plain``: the colour is the features, squashed; no shading (what the scene looks like is painted on)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.contracts import Material


class Plain(Material):
    """sRGB = sigmoid(features[:3])."""

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        return torch.sigmoid(features[:, :3])

    def param_groups(self) -> list[dict[str, Any]]:
        return []
