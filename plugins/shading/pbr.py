"""Material ``pbr``: metallic and rough surfaces under an environment (Burley 2012; Karis 2013), as glTF has it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Context, Material
from core.errors import UserError
from core.panorama import look_up, to_linear, to_srgb
from plugins.shading import split_sum


class Pbr(Material):
    """Five features: base colour (sRGB), roughness, metallic, each through a sigmoid."""

    feature_channels = 5
    needs_normal = True

    class Config(BaseConfig):
        environment: Literal["studio", "sky"] = "studio"
        """What lights it; both are made by formula."""
        exposure: float = Field(1.0, gt=0)
        """Multiplies the light."""
        roughness: tuple[float, float] = (0.08, 1.0)
        """Least and largest roughness."""
        metallic: tuple[float, float] = (0.0, 1.0)
        """Least and largest share of metal."""

    table: Tensor
    specular: Tensor
    diffuse: Tensor

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        # Tables follow from the options and stay out of checkpoints.
        self.register_buffer("table", split_sum.brdf_table(), persistent=False)
        self.register_buffer("specular", split_sum.prefiltered(options.environment), persistent=False)
        self.register_buffer("diffuse", split_sum.irradiance(options.environment), persistent=False)

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    def maps(self, features: Tensor) -> dict[str, Tensor]:
        """``base_color`` [N, 3] sRGB, ``roughness`` and ``metallic`` [N, 1], in [0, 1].

        Raises:
            UserError: fewer than five features.
        """
        if features.shape[-1] < 5:
            raise UserError(
                f"material pbr reads 5 features and the geometry gives {features.shape[-1]}; set geometry.channels=5"
            )
        squashed = torch.sigmoid(features[:, :5])
        o = self.options
        rough, metal = squashed[:, 3:4], squashed[:, 4:5]
        return {
            "base_color": squashed[:, :3],
            "roughness": o.roughness[0] + (o.roughness[1] - o.roughness[0]) * rough,
            "metallic": o.metallic[0] + (o.metallic[1] - o.metallic[0]) * metal,
        }

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        maps = self.maps(features)
        if normals is None:
            return maps["base_color"]
        return to_srgb(self.options.exposure * self.radiance(maps, -directions, normals))

    def radiance(self, maps: dict[str, Tensor], view: Tensor, normals: Tensor) -> Tensor:
        """[N, 3] linear light towards ``view`` [N, 3] (unit, to the eye)."""
        albedo, rough, metal = to_linear(maps["base_color"]), maps["roughness"], maps["metallic"]
        cosine = (normals * view).sum(-1, keepdim=True)
        mirrored = F.normalize(2 * cosine * normals - view, dim=-1, eps=1e-8)
        base = 0.04 + (albedo - 0.04) * metal
        scale, bias = self._brdf(cosine.clamp(1e-3, 1), rough).split(1, -1)
        specular = look_up(self.specular, mirrored, rough[:, 0]) * (base * scale + bias)
        return albedo * (1 - metal) * look_up(self.diffuse, normals) + specular

    def _brdf(self, cosine: Tensor, rough: Tensor) -> Tensor:
        """[N, 2] scale and bias from the table."""
        grid = torch.cat([cosine, rough], -1)[None, None] * 2 - 1
        table = self.table.movedim(-1, 0)[None].to(grid)
        return F.grid_sample(table, grid, padding_mode="border", align_corners=True)[0, :, 0].T
