"""Material ``diffuse``: albedo under a point light and ambient light (Poole et al. 2022, section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.contracts import Context, Material, Step


class Diffuse(Material):
    """sRGB = albedo (ambient + light max(0, n . l)), clipped at 1; albedo = sigmoid(features[:3]).

    Steps may be drawn to show the albedo alone, or a white object, or a light of random strength; pictures outside
    training never are.
    """

    needs_normal = True

    class Config(BaseConfig):
        ambient: float = Field(0.4, ge=0, le=1)
        """Light from everywhere."""
        light: float = Field(0.6, ge=0)
        """Strength of the point light."""
        unlit: Schedule = Schedule([(0, 0.0)])
        """Share of the steps that show the albedo without light; the light may come on later."""
        textureless: float = Field(0.0, ge=0, le=1)
        """Share of the steps that show a white object: shape alone."""
        light_spread: float = Field(0.0, ge=0)
        """Deviation of the light's direction from the camera's, drawn each step: 1 as in DreamFusion, about 0.3 keeps
        within Magic3D's 30 degrees; 0 leaves the light a little above the camera."""
        soft: bool = False
        """Draw in each lit step how much of the light there is and fill up with ambient light."""

        @model_validator(mode="after")
        def _shares(self) -> Any:
            least, most = self.unlit.extent
            if least < 0 or most > 1:
                raise ValueError(f"unlit: expected a share in [0, 1], found {least if least < 0 else most:g}")
            if least + self.textureless > 1:
                raise ValueError("unlit and textureless are shares of all steps and add up to more than 1")
            return self

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._mode, self._strength = "lit", 1.0
        self._aside = torch.zeros(3)

    def update(self, step: Step) -> None:
        """Draw how this step shows the object."""
        o, (mode, strength) = self.options, torch.rand(2, generator=step.generator("shading")).tolist()
        unlit = o.unlit.at(step.index, step.total)
        self._mode = "unlit" if mode < unlit else "textureless" if mode < unlit + o.textureless else "lit"
        self._strength = strength if o.soft else 1.0
        self._aside = o.light_spread * torch.randn(3, generator=step.generator("light"))

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        albedo = torch.sigmoid(features[:, :3])
        mode = self._mode if torch.is_grad_enabled() else "lit"
        if mode == "unlit":
            return albedo
        shade = self.shade(points, directions, normals, light)
        # A white object keeps a hair of its colour, so that its features never go without a gradient.
        return ((1 + 1e-3 * (albedo - 1) if mode == "textureless" else albedo) * shade).clamp(max=1)

    def shade(self, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None) -> Tensor:
        """[N, 1] received light; without a light position it comes from the camera, without normals it is 1."""
        if normals is None:
            return torch.ones_like(points[:, :1])
        o, share = self.options, self._strength if torch.is_grad_enabled() else 1.0
        if light is not None and o.light_spread and torch.is_grad_enabled():
            far = light.norm(dim=-1, keepdim=True)
            light = far * F.normalize(light / far + self._aside.to(light), dim=-1)
        towards = -directions if light is None else F.normalize(light - points, dim=-1)
        cosine = (normals * towards).sum(-1, keepdim=True).clamp(min=0)
        return o.ambient + o.light * (share * cosine + 1 - share)

    def param_groups(self) -> list[dict[str, Any]]:
        return []
