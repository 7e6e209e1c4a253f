"""Prior ``embedded-captioned``: the text-to-image prior, told what a given picture seems to show and from where.

As image-to-3D pipelines on Stable Diffusion caption their picture first (Magic123). Viewpoints count from where the
picture seems to be taken from (`sight.py`).
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.diffusion.relative_pose import relative_pose
from core.types import Cameras, Condition, Views
from plugins.embedded.family import BACKGROUND, family_folder, part
from plugins.embedded.prior import Embedded
from plugins.embedded.sight import Sight, turned

log = logging.getLogger("maquette")



class EmbeddedCaptioned(Embedded):
    """A sentence of the job's own goes before the caption."""

    looks = True

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.sight = Sight.load(options.family)
        self._seen: tuple[Views, str, Tensor] | None = None

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        return ["rgb", "image", "camera"], ["latent"]

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        if views is None or cameras is None:
            return super().condition(texts, cameras)
        caption, seen = self.look(views)
        told = super().condition([text or caption for text in texts], cameras)
        pose = relative_pose(views.cameras[:1].to(seen.device), cameras.to(seen.device))
        return Condition(text=told.text, camera=turned(seen.expand(len(texts), -1), pose))

    @torch.no_grad()
    def look(self, views: Views) -> tuple[str, Tensor]:
        """The caption of the first picture, and where it seems to be taken from [1, 7]; each set is seen once."""
        if self._seen is None or self._seen[0] is not views:
            device = next(self.unet.parameters()).device
            rgb = views.over(BACKGROUND)[:1].to(device)
            seen = self.sight(self.encode(rgb))
            caption, viewpoint = self.sight.caption(seen), seen.viewpoint
            azimuth = math.degrees(math.atan2(float(viewpoint[0, 0]), float(viewpoint[0, 1])))
            log.info("the picture seems to show %s, from %.0f degrees of azimuth", caption, azimuth)
            self._seen = views, caption, viewpoint
        return self._seen[1:]


@torch.no_grad()
def elevation_of(views: Views, family: str = "built-in") -> float | None:
    """Degrees above the horizon that the first picture seems to be taken from; None where the family has no ``sight/``.

    On the family's own objects it is right to some ten degrees; of anything else it has never seen a picture.
    """
    from diffusers import AutoencoderKL

    if not (family_folder(family) / "sight").is_dir():
        return None
    vae = AutoencoderKL.from_pretrained(part(family, "vae", "embedded-autoencoder")).float().eval()
    rgb = views.over(BACKGROUND)[:1].float().cpu().permute(0, 3, 1, 2)
    small = F.interpolate(rgb, size=(64, 64), mode="bilinear", antialias=True)
    latents = vae.encode(small * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
    return math.degrees(float(Sight.load(family)(latents).viewpoint[0, -1].clamp(-1.5, 1.5)))
