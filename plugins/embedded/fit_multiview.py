"""Fits the family's multi-view UNet: four views of one object denoised together, from a sentence or from a picture.

Started from the text-to-image UNet, whose self-attention runs over all views of a set from then on (Shi et al. 2024).
Every other step a set has a given picture: a further view without noise, and its CLIP embedding as a further token
(Wang & Shi 2023). Viewpoints are then counted from where it seems to be taken from.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context, Step
from core.diffusion.multi_view import JointAttention, join_views, predict_jointly
from core.diffusion.relative_pose import relative_pose
from core.diffusion.sampler import ddim
from core.types import Cameras, Condition, Views
from plugins.embedded.camera import embed_camera
from plugins.embedded.family import family_folder, part, save_half
from plugins.embedded.latent_fit import UnetFit, UnetFitConfig
from plugins.embedded.multiview import FRAMES, EmbeddedMultiView, image_encoder, told_picture
from plugins.embedded.sight import Sight


class EmbeddedMultiViewFit(UnetFit):
    """v-prediction of four orthogonal views' latents at one noise level."""

    class Config(UnetFitConfig):
        start: str | None = "built-in"
        """Family whose multi-view UNet the training goes on from, or, where it has none, whose text-to-image UNet."""
        no_text: float = Field(0.1, ge=0, le=1)
        """Share of sets without a picture whose text is empty (for classifier-free guidance)."""
        no_picture: float = Field(0.1, ge=0, le=1)
        """Share of sets with a picture whose picture is zeros: the other end of classifier-free guidance."""
        told_with_picture: float = Field(0.5, ge=0, le=1)
        """Share of sets with a picture that are told their sentence too."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._image = [image_encoder(options.family)]
        self._sight = [Sight.load(options.family)]
        self.joint: JointAttention = join_views(self.model)
        self._joint_average = join_views(self.average.model)

    def go_on_from(self, family: str) -> None:
        own = family_folder(family) / "multi_view" / "unet"
        text = part(family, "unet", "embedded-unet")
        self.take_over(self.model, self.stored(own if own.is_dir() else text), family)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        index, batch = self._sets(step)
        latents = self.latents()[index].float().to(self.device)  # [S, 5, C, h, w], the given picture last
        x0 = latents[:, :FRAMES].flatten(0, 1)
        noise = torch.randn(x0.shape, generator=step.generator("noise")).to(x0)
        level = torch.randint(self.process.steps, (len(index),), generator=step.generator("level")).to(self.device)
        t = level.repeat_interleave(FRAMES)
        told = self._told(index, batch, latents[:, FRAMES], step) if step.index % 2 else self._said(batch, step)
        output = predict_jointly(self.model, self.joint, self.process.add_noise(x0, noise, t), t, told, FRAMES)
        return {"v": F.mse_loss(output.float(), self.process.target(x0, noise, t))}

    def _sets(self, step: Step) -> tuple[Tensor, dict[str, Any]]:
        """Pool indices [S, 5] of this step's sets, and their rows of the pool."""
        views, count = FRAMES + 1, self.data.options.batch
        sets = torch.randint(self.data.options.images // views, (count,), generator=step.generator("data"))
        index = sets[:, None] * views + torch.arange(views)
        return index, self.data.take(index.flatten().numpy())

    def _said(self, batch: dict[str, Any], step: Step) -> Condition:
        """Sets that are told a sentence and their cameras."""
        azimuth, elevation = (batch[k].view(-1, FRAMES + 1)[:, :FRAMES] for k in ("azimuth", "elevation"))
        texts, roll = batch["caption"][:: FRAMES + 1], torch.rand(len(azimuth), generator=step.generator("condition"))
        texts = ["" if r < self.options.no_text else text for r, text in zip(roll, texts, strict=True)]
        camera = embed_camera(azimuth.flatten(), elevation.flatten()).to(self.device)
        return Condition(text=self.embed(texts).repeat_interleave(FRAMES, 0), camera=camera)

    def _told(self, index: Tensor, batch: dict[str, Any], given: Tensor, step: Step) -> Condition:
        """Sets with a given picture [S, C, h, w]."""
        o, views = self.options, FRAMES + 1
        roll = torch.rand(2, len(index), generator=step.generator("condition"))
        texts = [t if r < o.told_with_picture else "" for r, t in zip(roll[0], batch["caption"][::views], strict=True)]
        with torch.no_grad():
            seen = self._sight[0].to(self.device)(given).viewpoint
            rgb = batch["rgb"][FRAMES::views].to(self.device)
            token = self._image[0].to(self.device)(pixel_values=rgb.permute(0, 3, 1, 2) * 2 - 1).image_embeds
        first, circle = index[:, FRAMES:].expand(-1, FRAMES).flatten(), index[:, :FRAMES].flatten()
        pose = relative_pose(self.data.cameras(first), self.data.cameras(circle)).to(self.device)
        shown = (roll[1] >= o.no_picture).to(self.device)
        return told_picture(self.embed(texts), token, given, seen, pose, shown)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Rows of four views, 25 DDIM steps at scale 4: of five prompts, and of five pictures of the pool."""
        prompts = ("a standing corgi dog", "a castle on a hill", "a race car", "a blue chair", "a purple mug")
        prior, size = self._prior(), self.data.options.size
        around = Cameras.turntable(torch.arange(FRAMES) * torch.pi / 2, 0.26, size)
        blank = torch.zeros(1, size, size, 3)
        rows = [torch.cat([blank, self._sample(prior, prior.condition([p] * FRAMES, around))]) for p in prompts]
        for k in range(FRAMES, 5 * (FRAMES + 1), FRAMES + 1):
            rgb = torch.from_numpy(self.data.pool["rgb"][k : k + 1]).float() / 255
            views = Views(rgb, torch.ones_like(rgb[..., :1]), self.data.cameras(torch.tensor([k])))
            rows.append(torch.cat([rgb, self._sample(prior, prior.condition([""] * FRAMES, around, views))]))
        sheet = torch.stack(rows).permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)
        return {"samples": (sheet * 255).byte().numpy()}

    def _prior(self) -> EmbeddedMultiView:
        parts = {"vae": self._vae[0], "text_encoder": self._text[0], "tokenizer": self.tokenizer}
        parts |= {"unet": self.average.model, "scheduler": self.scheduler}
        parts |= {"image_encoder": self._image[0], "sight": self._sight[0]}
        return EmbeddedMultiView.of(parts, self.context).to(self.device)

    def _sample(self, prior: EmbeddedMultiView, told: Condition) -> Tensor:
        return ddim(prior, told, prior.opposite(told, [""] * FRAMES), scale=4.0, steps=25).cpu()

    def finish(self, run: Any) -> None:
        """Save ``multi_view/unet``; the other parts are the family's."""
        save_half(self.average.model, family_folder(self.options.family) / "multi_view" / "unet")
        self.remember("multi_view", run)
