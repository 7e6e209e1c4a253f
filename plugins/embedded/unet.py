"""Fits the family's text-to-image UNet: one network, told the viewpoint or not.

With a viewpoint (a vector beside the timestep) it is the default prior; without (zeros), and with view words in the
text, it is the plain twin of Stable Diffusion. One training serves both: a share of every batch is told nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Step
from core.diffusion.latent import LatentPrior
from core.diffusion.sampler import ddim
from core.types import Condition
from plugins.embedded.camera import embed_camera
from plugins.embedded.clip import captions_with_views
from plugins.embedded.family import family_folder, part, save_half
from plugins.embedded.latent_fit import UnetFit, UnetFitConfig


class EmbeddedUnet(UnetFit):
    """v-prediction on the autoencoder's latents, under the frozen text tower."""

    class Config(UnetFitConfig):
        no_text: float = Field(0.1, ge=0, le=1)
        """Share of pictures whose text is empty (for classifier-free guidance)."""
        no_camera: float = Field(0.4, ge=0, le=1)
        """Share of pictures whose viewpoint is not told as a vector; most of these are told by a view word."""

    def go_on_from(self, family: str) -> None:
        self.take_over(self.model, self.stored(part(family, "unet", "embedded-unet")), family)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        latents = self.latents()
        batch = self.data.batch(step)
        x0 = latents[torch.from_numpy(batch["index"])].float().to(self.device)
        texts, camera = self._condition(batch, step)
        noise = torch.randn(x0.shape, generator=step.generator("noise")).to(x0)
        t = torch.randint(self.process.steps, (len(x0),), generator=step.generator("level")).to(self.device)
        output = self.model(
            self.process.add_noise(x0, noise, t), t, encoder_hidden_states=self.embed(texts), class_labels=camera
        ).sample
        return {"v": F.mse_loss(output.float(), self.process.target(x0, noise, t))}

    def _condition(self, batch: dict[str, Any], step: Step) -> tuple[list[str], Tensor]:
        count = len(batch["caption"])
        rolls = torch.rand(3, count, generator=step.generator("condition"))
        blind = rolls[0] < self.options.no_camera
        # A few of the blind ones get no view word either, so that a bare caption means "from anywhere".
        texts = captions_with_views(batch, blind & (rolls[1] < 0.85))
        texts = ["" if roll < self.options.no_text else text for roll, text in zip(rolls[2], texts, strict=True)]
        camera = embed_camera(batch["azimuth"], batch["elevation"]) * (~blind)[:, None]
        return texts, camera.to(self.device)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Eight prompts (rows) from eight azimuths, 25 DDIM steps at scale 4."""
        prompts: tuple[str, ...] = ("a standing corgi dog", "a castle on a hill", "a race car", "a blue chair")
        prompts += ("a purple mug", "a red airplane", "a yellow robot", "a green teapot")
        azimuth = (torch.arange(8) * torch.pi / 4).repeat(len(prompts))
        camera = embed_camera(azimuth, torch.full_like(azimuth, 0.26)).to(self.device)
        parts = {"vae": self._vae[0], "text_encoder": self._text[0], "tokenizer": self.tokenizer}
        parts |= {"unet": self.average.model, "scheduler": self.scheduler}
        prior = LatentPrior(None, self.context, parts).to(self.device)
        told = Condition(text=self.embed([p for p in prompts for _ in range(8)]), camera=camera)
        untold = Condition(text=self.embed([""] * len(azimuth)), camera=camera)
        rgb = ddim(prior, told, untold, scale=4.0, steps=25).view(len(prompts), 8, *(self.data.options.size,) * 2, 3)
        sheet = rgb.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)
        return {"samples": (sheet * 255).byte().cpu().numpy()}

    def finish(self, run: Any) -> None:
        """Save ``unet/`` and ``scheduler/``."""
        folder = family_folder(self.options.family)
        save_half(self.average.model, folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")
        self.remember("unet", run)
