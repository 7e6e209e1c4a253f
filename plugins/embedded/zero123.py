"""Prior ``embedded-zero123``: the family's small Zero-1-to-3, one picture and a relative camera to another view."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.contracts import Context
from core.diffusion.novel_view import CameraProjection, NovelViewPrior
from core.precision import settled_dtype
from plugins.embedded.camera import CAMERA_DIM, HARMONICS
from plugins.embedded.family import BACKGROUND, family_folder, part
from plugins.embedded.named import NamedEncoder
from plugins.embedded.prior import FamilyConfig
from plugins.embedded.sight import Sight, turned

VIEWPOINT_DIM = CAMERA_DIM + 2 * len(HARMONICS) + 2
_FEATURES = {"mean": [0.5] * 3, "std": [0.5] * 3}


def told_viewpoint(seen: Tensor, pose: Tensor) -> Tensor:
    """[B, 18] what the UNet hears beside the timestep: the wanted view's own viewpoint, as far as the given picture's
    [B, 7] tells it, and the relative camera [B, 4] (as harmonics), which says how much of the picture can be kept."""
    turn = torch.atan2(pose[:, 1], pose[:, 2])
    harmonics = [f(k * turn) for k in HARMONICS for f in (torch.sin, torch.cos)]
    return torch.cat([turned(seen, pose), torch.stack([*harmonics, pose[:, 0], pose[:, 3]], -1)], -1)


class EmbeddedZero123(NovelViewPrior):
    """64x64 pictures, 16x16 latents; pictures are laid over the grey that the family knows."""

    class Config(FamilyConfig):
        pass

    def __init__(self, options: Any, context: Context) -> None:
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

        folder = part(options.family, "zero123", "embedded-zero123")
        family = family_folder(options.family)
        tower = NamedEncoder.of_family(options.family)
        parts = {
            "vae": AutoencoderKL.from_pretrained(part(options.family, "vae", "embedded-autoencoder")),
            "unet": UNet2DConditionModel.from_pretrained(folder / "unet"),
            "scheduler": DDIMScheduler.from_pretrained(family / "scheduler"),
            "image_encoder": tower,
            "sight": tower.sight,
            "cc_projection": CameraProjection.from_pretrained(folder / "cc_projection"),
        }
        self._start(options, context, parts, settled_dtype(options.precision, context.device))

    def _start(self, options: Any, context: Context, parts: dict[str, Any], dtype: torch.dtype) -> None:
        features = _FEATURES | {"size": parts["image_encoder"].config.image_size}
        super().__init__(options, context, parts | {"feature_extractor": features}, dtype=dtype, background=BACKGROUND)
        self.estimate: Sight = parts["sight"]

    @classmethod
    def of(cls, parts: dict[str, Any], context: Context) -> EmbeddedZero123:
        """The prior of networks in memory."""
        prior = cls.__new__(cls)
        prior._start(None, context, parts, torch.float32)
        return prior

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        return cls.space_of(str(part(options.family, "zero123", "embedded-zero123")))

    def viewpoint(self, latent: Tensor | None, pose: Tensor | None, count: int = 0) -> Tensor | None:
        if latent is None or pose is None:
            return torch.zeros(count, VIEWPOINT_DIM, device=self.device)
        return told_viewpoint(self.estimate(latent * self.vae.config.scaling_factor).viewpoint, pose)
