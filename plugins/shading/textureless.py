"""Material ``textureless``: a white object under the light, so that guidance sees shape alone (Poole et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from plugins.shading.diffuse import Diffuse


class Textureless(Diffuse):
    """Like ``diffuse`` with albedo 1."""

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        return self.shade(points, directions, normals, light).clamp(max=1).expand(-1, 3)
