"""Fits the family's viewpoint-conditioned UNet: one picture of an object and a relative camera to another view of it.

The structure of Zero-1-to-3 (Liu et al. 2023): the given picture's latent is concatenated with the noisy one, and one
token, a linear projection of the picture's CLIP embedding and the relative camera, is all that cross-attention sees. A
network this small also hears a viewpoint beside the timestep, as the text prior that it starts from does: where the
given picture seems to be taken from (`sight.py`), turned by the relative camera, and the relative camera itself.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Context, Step
from core.diffusion.novel_view import CameraProjection
from core.diffusion.relative_pose import relative_pose
from core.diffusion.sampler import ddim
from core.errors import UserError
from core.types import Cameras, Views
from plugins.embedded.family import family_folder, part, save_half
from plugins.embedded.latent_fit import UnetFit, UnetFitConfig
from plugins.embedded.named import NamedEncoder
from plugins.embedded.zero123 import VIEWPOINT_DIM, EmbeddedZero123, told_viewpoint

_PICTURES, _VIEWPOINT = "conv_in.weight", "class_embedding.linear_1.weight"
"""The two layers with more inputs than the text-to-image UNet's."""
OVERHEAD = 1.05
"""Radians of elevation above which a picture is not given but wanted: nobody photographs from there."""


def _widened(unet: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of ``state`` that have fewer inputs than the UNet's, the further inputs' at zero."""
    wanted = {name: unet.get_parameter(name) for name in (_PICTURES, _VIEWPOINT)}
    wide = {name: w.detach().new_zeros(w.shape) for name, w in wanted.items() if w.shape != state[name].shape}
    for name, weight in wide.items():
        weight[:, : state[name].shape[1]] = state[name].detach()
    return wide


class ViewpointUnet(nn.Module):
    """The UNet and the projection of its only token, as they are trained and averaged together."""

    def __init__(self, unet: Any, cc_projection: CameraProjection) -> None:
        super().__init__()
        self.unet, self.cc_projection = unet, cc_projection


class EmbeddedZero123Fit(UnetFit):
    """v-prediction of one picture's latents under another one; each object of the pool gives pairs of all its views."""

    class Config(UnetFitConfig):
        start: str | None = "built-in"
        """Family whose viewpoint-conditioned UNet the training goes on from, or, where it has none, whose text-to-image
        UNet; new input channels then start at zero."""
        skew: float = Field(0.6, gt=0)
        """Noise levels are uniform numbers to this power: below 1, more high ones, where it is decided what is seen."""
        no_token: float = Field(0.05, ge=0, le=1)
        """Share of pairs whose CLIP embedding is zero; the relative camera is kept."""
        no_picture: float = Field(0.05, ge=0, le=1)
        """Share of pairs whose concatenated latent is zero."""
        nothing: float = Field(0.05, ge=0, le=1)
        """Share of pairs told nothing at all: the other end of classifier-free guidance."""
        repaint: float = Field(0.0, ge=0, le=1)
        """Share of pairs whose colour channels are exchanged, alike in both pictures: how an object turns does not hang
        on its colour, and pairs of kind and colour are learned that no picture shows."""
        same: float = Field(0.05, ge=0, le=1)
        """Share of pairs that are one picture twice, which two random cameras of an object never come near."""
        begun: float = Field(0.0, ge=0, lt=1)
        """Share of the weights that ``start`` gave in those that are saved: a short training on other pictures is
        averaged with what was known before (Wortsman et al. 2022, "Model soups")."""

    def __init__(self, options: Any, context: Context) -> None:
        if options.begun and options.start is None:
            raise UserError(f"begun={options.begun:g}: without start there are no weights before to average with")
        self._begun: dict[str, Tensor] = {}  # files already, not for checkpoints
        self._image = [NamedEncoder.of_family(options.family)]
        self._sight = [self._image[0].sight]
        super().__init__(options, context)
        images, views = self.data.options.images, self.data.options.views
        if views < 2 or images % views:
            raise UserError(f"data: {images} pictures, {views} of each object, leave one without another view")

    def build_model(self) -> Any:
        unet = self.build_unet()
        first, told = unet.conv_in, unet.class_embedding.linear_1
        unet.conv_in = nn.Conv2d(2 * first.in_channels, first.out_channels, 3, padding=1)
        unet.class_embedding.linear_1 = nn.Linear(VIEWPOINT_DIM, told.out_features)
        unet.load_state_dict(_widened(unet, {_PICTURES: first.weight, _VIEWPOINT: told.weight}), strict=False)
        unet.register_to_config(
            in_channels=2 * first.in_channels, projection_class_embeddings_input_dim=VIEWPOINT_DIM
        )  # fmt: skip
        return ViewpointUnet(unet, CameraProjection(self._image[0].config.projection_dim))

    def go_on_from(self, family: str) -> None:
        own = family_folder(family) / "zero123"
        if own.is_dir():
            self.model.cc_projection = CameraProjection.from_pretrained(own / "cc_projection")
        state = self.stored(own / "unet" if own.is_dir() else part(family, "unet", "embedded-unet"))
        self.take_over(self.model.unet, state | _widened(self.model.unet, state), family)
        if self.options.begun:
            self._begun = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def pool(self, repainted: bool) -> tuple[Tensor, Tensor]:
        """[N, C, h, w] and [N, D] float16: the whole pool's latents, or its repainted copy's, and their embeddings."""
        views = self.data.options.views
        latents = self.repainted(views) if repainted else self.latents()
        weights = part(self.options.family, "sight", "embedded-sight") / "model.safetensors"
        name = f"named-repainted-{views}" if repainted else "named"
        return latents, self.kept(name, weights, lambda: self._named(latents))

    def _named(self, latents: Tensor) -> Tensor:
        tower = self._image[0].to(self.device)
        return torch.cat([tower.of_latents(x.float().to(self.device)).half().cpu() for x in latents.split(512)])

    def shown(self, given: Tensor, wanted: Tensor, step: Step) -> list[Tensor]:
        """Latents [B, C, h, w] and embeddings [B, D] of the ``given`` pictures, latents of the ``wanted`` ones."""
        latents, named = self.pool(False)
        out = [latents[given], named[given], latents[wanted]]
        if self.options.repaint:
            painted = torch.rand(len(given), generator=step.generator("repaint")) < self.options.repaint
            latents, named = self.pool(True)
            for k, (of, index) in enumerate(((latents, given), (named, given), (latents, wanted))):
                out[k][painted] = of[index[painted]]
        return [x.float().to(self.device) for x in out]

    def other(self, wanted: Tensor, step: Step) -> Tensor:
        """[B] another picture of each one's object; the pool shows an object ``views`` times in a row."""
        views = self.data.options.views
        place = wanted % views
        further = torch.randint(1, views, wanted.shape, generator=step.generator("partner"))
        return wanted - place + (place + further) % views

    def training_step(self, step: Step) -> dict[str, Tensor]:
        wanted = self.data.draw(step)
        given = self.other(wanted, step)
        elevation = torch.from_numpy(self.data.pool["elevation"])
        swap = elevation[given] > OVERHEAD
        given, wanted = torch.where(swap, wanted, given), torch.where(swap, given, wanted)
        same = torch.rand(len(given), generator=step.generator("same")) < self.options.same
        wanted = torch.where(same, given, wanted)
        pose = relative_pose(self.data.cameras(given), self.data.cameras(wanted))
        latent, embedding, x0 = self.shown(given, wanted, step)
        noise = torch.randn(x0.shape, generator=step.generator("noise")).to(x0)
        level = torch.rand(len(x0), generator=step.generator("level")) ** self.options.skew
        t = self.process.timestep(level).to(self.device)
        noisy = self.process.add_noise(x0, noise, t)
        token, picture, camera = self._told(latent, embedding, pose, step)
        output = self.model.unet(
            torch.cat([noisy, picture], 1), t, encoder_hidden_states=token, class_labels=camera
        ).sample
        return {"v": F.mse_loss(output.float(), self.process.target(x0, noise, t))}

    def _told(self, seen: Tensor, embedding: Tensor, pose: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """The token [B, 1, D], the concatenated latent [B, C, h, w] and the vector beside the timestep [B, 18]."""
        o, device = self.options, self.device
        roll = torch.rand(len(seen), generator=step.generator("condition")).to(device)
        nothing = roll < o.nothing
        blind = (roll >= o.nothing) & (roll < o.nothing + o.no_token)
        apart = (roll >= o.nothing + o.no_token) & (roll < o.nothing + o.no_token + o.no_picture)
        pose = pose.to(device)
        embedding = embedding * ~(blind | nothing)[:, None]
        # Where nothing is told the token is zero after the projection, as it is when guidance asks for it.
        token = self.model.cc_projection(embedding, pose) * ~nothing[:, None]
        picture = seen / self._vae[0].config.scaling_factor * ~(apart | nothing)[:, None, None, None]
        with torch.no_grad():
            camera = told_viewpoint(self._sight[0].to(device)(seen).viewpoint, pose)
        return token[:, None], picture, camera * ~(nothing | apart)[:, None]

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Each row: a given picture, then eight azimuths round it, 25 DDIM steps at scale 3."""
        model, nobody = self.average.model, [""] * 8
        parts = {"vae": self._vae[0], "unet": model.unet, "scheduler": self.scheduler, "sight": self._sight[0]}
        parts |= {"image_encoder": self._image[0], "cc_projection": model.cc_projection}
        prior = EmbeddedZero123.of(parts, self.context).to(self.device)
        around = Cameras.turntable(torch.arange(8) * torch.pi / 4, 0.3, self.data.options.size)
        rows = []
        for k in range(0, 6 * self.data.options.views, self.data.options.views):
            rgb = torch.from_numpy(self.data.pool["rgb"][k : k + 1]).float() / 255
            views = Views(rgb, torch.ones_like(rgb[..., :1]), self.data.cameras(torch.tensor([k])))
            told = prior.condition(nobody, around, views)
            rows.append(torch.cat([rgb, ddim(prior, told, prior.opposite(told, nobody), scale=3.0, steps=25).cpu()]))
        sheet = torch.stack(rows).permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)
        return {"samples": (sheet * 255).byte().numpy()}

    def finish(self, run: Any) -> None:
        """Save ``zero123/unet`` and ``zero123/cc_projection``; the other parts are the family's."""
        folder, model = family_folder(self.options.family) / "zero123", self.average.model
        for name, value in model.state_dict().items():
            if name in self._begun:
                value.lerp_(self._begun[name].to(value), self.options.begun)
        save_half(model.unet, folder / "unet")
        model.cc_projection.save_pretrained(folder / "cc_projection")
        self.remember("zero123", run)
