"""Material ``latent``: the features are a prior's latents, and guidance sees them without an encoder in between.

Latent-NeRF (Metzer et al. 2023, section 3.1) and Score Jacobian Chaining (Wang et al. 2023). Colours for losses, meshes
and backgrounds come from a linear map between latents and sRGB; Latent-NeRF's (section 3.3) is a constant of Stable
Diffusion's autoencoder, here it is fitted to whatever prior there is. Pictures for people are decoded.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Context, Material, Step

_PICTURES, _AT_ONCE = 48, 8


class Latent(Material):
    """sRGB = latent A + b, clipped to [0, 1]; the geometry's features are as many as the prior's space has channels."""

    latent = True

    class Config(BaseConfig):
        pictures: Literal["decoded", "linear"] = "decoded"
        """What people see: the prior's decoder at the size it was made for, or the linear map at any size."""

    to_rgb: Tensor  # [C + 1, 3]: the last row is b
    to_latent: Tensor  # [4, C]
    fitted: Tensor  # [] bool

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        prior = context.parts.get("prior")
        self.feature_channels = prior.space()[0] if prior is not None else 4
        # Without a prior (a check, a bare material) the first three channels are the colour.
        spread = torch.eye(self.feature_channels, 3)
        self.register_buffer("to_rgb", torch.cat([0.25 * spread, torch.full((1, 3), 0.5)]))
        self.register_buffer("to_latent", torch.cat([4 * spread.t(), -2 * spread.sum(1)[None]]))
        self.register_buffer("fitted", torch.tensor(False))

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    def update(self, step: Step) -> None:
        self._fit()

    @torch.no_grad()
    def _fit(self) -> None:
        """The linear maps of this prior by least squares, once; afterwards they are part of the checkpoint."""
        handle = self.context.parts.get("prior")
        if handle is None or bool(self.fitted):
            return
        prior, (_, height, width) = handle.load(), handle.space()
        rgb = _patterns(self.context.generator("latent-patterns"), 4 * height, 4 * width).to(self.to_rgb)
        latents = torch.cat([prior.encode(part) for part in rgb.split(_AT_ONCE)]).movedim(1, -1)
        small = F.adaptive_avg_pool2d(rgb.movedim(-1, 1), (latents.shape[1], latents.shape[2])).movedim(1, -1)
        self.to_rgb.copy_(_affine(latents, small))
        flat = _flat(len(rgb))
        self.to_latent.copy_(_affine(small[flat], latents[flat]))
        self.fitted.fill_(True)

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        return _apply(features, self.to_rgb).clamp(0, 1)

    def behind(self, rgb: Tensor) -> Tensor:
        return _apply(rgb, self.to_latent)

    def picture(self, latent: Tensor) -> Tensor | None:
        prior = self.context.parts.get("prior")
        if prior is None or self.options.pictures == "linear":
            return None
        _, height, width = prior.space()
        small = F.interpolate(latent.movedim(-1, 1), (height, width), mode="area")
        decoded = torch.cat([prior.load().decode(part) for part in small.split(_AT_ONCE)])
        shown = F.interpolate(decoded.movedim(-1, 1), latent.shape[1:3], mode="bilinear", antialias=True)
        return shown.movedim(1, -1).clamp(0, 1)


def _flat(count: int) -> slice:
    return slice(0, count // 2)


def _patterns(generator: torch.Generator, height: int, width: int) -> Tensor:
    """[N, H, W, 3] pictures to learn a map on: the first half of one colour each, the rest of 2 to 8 patches a side."""
    pictures = []
    for index in range(_PICTURES):
        patches = 1 if index < _PICTURES // 2 else 2 + index % 7
        colours = torch.rand(1, 3, patches, patches, generator=generator)
        pictures.append(F.interpolate(colours, (height, width), mode="nearest"))
    return torch.cat(pictures).movedim(1, -1)


def _affine(inputs: Tensor, outputs: Tensor) -> Tensor:
    """[K + 1, M] least-squares map from [..., K] to [..., M], with a constant in the last row."""
    flat = F.pad(inputs.flatten(0, -2).double(), (0, 1), value=1.0)
    return torch.linalg.lstsq(flat, outputs.flatten(0, -2).double(), driver="gelsd").solution.to(inputs)


def _apply(values: Tensor, affine: Tensor) -> Tensor:
    return values @ affine[:-1] + affine[-1]
