"""Prior ``embedded-multiview``: four views of one object denoised together, from a sentence, a picture, or both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.diffusion.latent import load_parts
from core.diffusion.multi_view import MultiViewPrior
from core.diffusion.relative_pose import relative_pose
from core.precision import settled_dtype
from core.types import Cameras, Condition, Views
from plugins.embedded.camera import embed_camera, no_camera
from plugins.embedded.family import BACKGROUND, family_folder, part
from plugins.embedded.prior import FamilyConfig
from plugins.embedded.sight import Sight, turned

FRAMES = 4


def image_encoder(family: str) -> Any:
    """The vision tower of the family's CLIP, in evaluation mode."""
    from transformers import CLIPVisionModelWithProjection
    from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

    disable_progress_bar()
    folder, before = part(family, "clip", "embedded-clip"), get_verbosity()
    set_verbosity_error()  # it would list the text tower as unexpected
    try:
        return CLIPVisionModelWithProjection.from_pretrained(folder).float().eval()
    finally:
        set_verbosity(before)


class EmbeddedMultiView(MultiViewPrior):
    """64x64 pictures, 16x16 latents. Views of a set should lie 90 degrees apart at one elevation."""

    looks = True
    frames = FRAMES

    class Config(FamilyConfig):
        pass

    def __init__(self, options: Any, context: Context) -> None:
        folder = part(options.family, "multi_view", "embedded-multiview")
        parts = load_parts(str(family_folder(options.family)), within={"unet": folder})
        parts |= {"image_encoder": image_encoder(options.family), "sight": Sight.load(options.family)}
        self._start(options, context, parts, settled_dtype(options.precision, context.device))

    def _start(self, options: Any, context: Context, parts: dict[str, Any], dtype: torch.dtype) -> None:
        super().__init__(options, context, parts, dtype=dtype)
        self.image_encoder = parts["image_encoder"].requires_grad_(False)
        self.estimate: Sight = parts["sight"]
        self._seen: tuple[Views, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, parts: dict[str, Any], context: Context) -> EmbeddedMultiView:
        """The prior of networks in memory."""
        prior = cls.__new__(cls)
        prior._start(None, context, parts, torch.float32)
        return prior

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        return cls.space_of(str(part(options.family, "multi_view", "embedded-multiview")))

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        """With ``views`` they count from the given picture (the first, where there are several)."""
        text = super().condition(texts).text
        device = text.device  # type: ignore[union-attr]
        if cameras is None:
            return Condition(text=text, camera=no_camera(len(texts), device))
        cameras = cameras.to(device)
        if views is None:
            return Condition(text=text, camera=embed_camera(cameras.azimuth, cameras.elevation))
        sets = len(texts) // self.frames
        token, latent = (x.expand(sets, *x.shape[1:]) for x in self._look(views, device))
        pose = relative_pose(views.cameras[:1].to(device), cameras)
        return told_picture(text[:: self.frames], token, latent, self.estimate(latent).viewpoint, pose)  # type: ignore[index]

    def opposite(self, told: Condition, texts: list[str], cameras: Cameras | None = None) -> Condition:
        """Other texts and no picture, from the same views."""
        text: Any = super().condition(texts).text
        if told.image is None:
            return replace(told, text=text)
        text = torch.cat([text, torch.zeros_like(text[:, :1])], 1)
        extras = {k: torch.zeros_like(v) for k, v in told.extras.items()}
        return replace(told, text=text, image=torch.zeros_like(told.image), extras=extras)

    @torch.no_grad()
    def _look(self, views: Views, device: torch.device) -> tuple[Tensor, Tensor]:
        """CLIP embedding [1, D] and scaled latents [1, C, h, w] of the first picture."""
        if self._seen is None or self._seen[0] is not views:
            rgb = views.over(BACKGROUND)[:1].to(device)
            small = F.interpolate(rgb.permute(0, 3, 1, 2), size=(self.image_size,) * 2, mode="bilinear", antialias=True)
            self._seen = views, self.image_encoder(pixel_values=small * 2 - 1).image_embeds, self.encode(rgb)
        return self._seen[1:]


def told_picture(
    text: Tensor, token: Tensor, given: Tensor, seen: Tensor, pose: Tensor, shown: Tensor | None = None
) -> Condition:
    """S sets of views with a given picture each.

    Args:
        text: [S, L, D] token states.  token: [S, D] the picture's CLIP embedding, a further token.
        given: [S, C, h, w] its latents.  seen: [S, 7] where it seems to be taken from.
        pose: [S * frames, 4] each view's relative camera.  shown: [S] false hides the picture.
    """
    frames = len(pose) // len(text)
    shown = torch.ones(len(text), device=text.device) if shown is None else shown.to(text)
    own = turned(seen, torch.zeros_like(pose[: len(seen)]) + pose.new_tensor([0.0, 0.0, 1.0, 0.0]))
    text = torch.cat([text, (token * shown[:, None])[:, None]], 1)
    return Condition(
        text=text.repeat_interleave(frames, 0),
        camera=turned(seen.repeat_interleave(frames, 0), pose),
        image=(given * shown[:, None, None, None]).repeat_interleave(frames, 0),
        extras={"given": (own * shown[:, None]).repeat_interleave(frames, 0)},
    )
