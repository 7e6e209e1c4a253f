"""Generator ``render-diffusion``: diffusion of pictures whose denoiser renders three feature planes.

Anciukevičius et al. 2023, "RenderDiffusion: Image Diffusion for 3D Reconstruction, Inpainting and Generation". One
picture of each object is enough: its camera renders what the network answers, and the network is not told it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Scene, Step
from core.errors import UserError
from core.generative.through_rendering import Code, Known, ThroughRendering, ThroughRenderingConfig
from core.types import Cameras
from plugins.render_diffusion.network import NetworkConfig, PlaneNetwork

if TYPE_CHECKING:
    from core.asked import Asked

_CHUNK = 16


class RenderDiffusion(ThroughRendering):
    """The answer to a noisy picture is what the planes look like from its own camera; nothing else is supervised."""

    class Config(ThroughRenderingConfig):
        batch: int = Field(8, ge=1)
        """Pictures of a training step, each of another object."""
        network: NetworkConfig = NetworkConfig()
        """The network."""
        level: float = Field(0.05, ge=0, le=1)
        """How much noise a given picture gets before it is denoised: 0 trusts every pixel, more brings it nearer to
        what the model knows."""
        hole: Path | None = None
        """A picture, white where the given one is to be filled in; null reconstructs it whole."""
        elevation: float = Field(20.0, ge=-90, le=90)
        """Of the camera that objects are drawn from where no picture is given, degrees."""
        distance: float = Field(3.0, gt=1)
        """Likewise, world units."""
        fov: float = Field(40.0, gt=0, lt=180)
        """Likewise, degrees of vertical field of view."""

    filled = ("planes",)

    def check(self) -> None:
        super().check()
        o, data = self.options, self.data.options
        if data.images < o.batch:
            raise UserError(f"data.images={data.images} is too little: a step looks at batch={o.batch} pictures")
        levels = len(o.network.channels) - 1
        if data.size % (o.network.patch << levels):
            cut = f"cut into squares of {o.network.patch} pixels, and these " if o.network.patch > 1 else ""
            raise UserError(f"data.size={data.size} cannot be {cut}halved {levels} times, as network.channels wants")

    def network(self, geometry: Any) -> nn.Module:
        o = self.options
        if geometry.options.resolution != self.size:
            found = f"geometry.resolution={geometry.options.resolution} is not data.size={self.size}"
            raise UserError(f"{found}: planes are as large as pictures")
        return PlaneNetwork(o.network, self.size, geometry.options.features)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        draw = step.generator("render-diffusion")
        rgb, cameras = self.drawn_views(self.options.batch, 1, draw)
        t = torch.randint(1, self.process.steps, (len(rgb), 1), generator=draw).to(rgb.device)
        return self.denoising_losses(rgb, cameras, t, 0.0, step)

    # -- sampling --------------------------------------------------------------------------------------------------

    def around(self, azimuth: Tensor) -> Cameras:
        """Cameras at azimuths [B], radians, as far and as high as the options say."""
        o = self.options
        told = math.radians(o.elevation), o.distance, math.radians(o.fov)
        tilt, far, fov = (torch.full_like(azimuth, value) for value in told)
        return Cameras.orbit(azimuth, tilt, far, fov, self.size, self.size).to(self.device)

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator, steps: int | None = None) -> list[Code]:
        """``count`` scenes, each denoised from a random side."""
        codes: list[Code] = []
        for first in range(0, count, _CHUNK):
            some = min(_CHUNK, count - first)
            cameras = self.around(torch.rand(some, generator=generator) * 2 * math.pi)
            start = torch.randn((some, 1, 3, self.size, self.size), generator=generator).to(self.device)
            codes += self.walk(start, cameras, steps=steps)
        return codes

    @torch.no_grad()
    def reconstructed(
        self, rgb: Tensor, cameras: Cameras, level: float, generator: torch.Generator, steps: int | None = None
    ) -> list[Code]:
        """Scenes of pictures [B, 3, S, S] in [-1, 1], noised to ``level`` of the process and denoised (section 3.4)."""
        first = max(1, int(level * (self.process.steps - 1)))
        steps = max(1, math.ceil((steps or self.options.sampler_steps) * first / self.process.steps))
        noise = torch.randn(rgb[:, None].shape, generator=generator).to(rgb)
        t = torch.full((len(rgb),), first, device=rgb.device)
        start = self.process.add_noise(rgb[:, None], noise, t) if level else rgb[:, None]
        return self.walk(start, cameras, first=first, steps=steps)

    @torch.no_grad()
    def inpainted(
        self, rgb: Tensor, hole: Tensor, cameras: Cameras, generator: torch.Generator, steps: int | None = None
    ) -> list[Code]:
        """Scenes of pictures [B, 3, S, S] in [-1, 1] of which the pixels where ``hole`` [B, 1, S, S] is 1 are drawn.

        The known pixels of every estimate are the picture's, so that they follow their own noise (Lugmayr et al. 2022).
        """
        start = torch.randn(rgb[:, None].shape, generator=generator).to(rgb)
        known = Known(rgb[:, None], 1 - hole[:, None].to(rgb))
        return self.walk(start, cameras, known=known, steps=steps)

    def sample(self, count: int, asked: Asked | None, generator: torch.Generator) -> list[Scene | Tensor]:
        """``count`` objects: any, what a given picture shows, or what it shows with its hole filled.

        Raises:
            UserError: something was asked for in words alone, or several pictures were given.
        """
        given = self.given(asked, count)
        if given is None:
            return [self.scene(code) for code in self.draw(count, generator)]
        rgb, cameras = given[0][:, 0], given[1]
        if given[0].shape[1] > 1:
            raise UserError(f"render-diffusion looks at one picture, not at {given[0].shape[1]}; viewset takes several")
        if self.options.hole is not None:
            hole = self._hole().expand(count, -1, -1, -1)
            return [self.scene(code) for code in self.inpainted(rgb, hole, cameras, generator)]
        return [self.scene(c) for c in self.reconstructed(rgb, cameras, self.options.level, generator)]

    def _hole(self) -> Tensor:
        """[1, 1, S, S] of the picture that tells it.

        Raises:
            UserError: the file is missing or is no picture.
        """
        import numpy as np
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.options.hole) as picture:
                grey = np.asarray(picture.convert("L").resize((self.size, self.size)), np.float32) / 255
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"hole: {self.options.hole} cannot be read as a picture ({error})") from None
        return (torch.from_numpy(grey)[None, None] > 0.5).float()

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Four rows: pictures, what is reconstructed of them from their side and from the back, and four samples."""
        generator, look = torch.Generator().manual_seed(0), self.average.model["look"]
        rgb, cameras = self.drawn_views(4, 1, generator)
        codes = self.reconstructed(rgb[:, 0], cameras, self.options.level, generator, steps=8)
        back = Cameras.orbit(
            cameras.azimuth + math.pi, cameras.elevation, cameras.distance, cameras.fov_y, self.size, self.size
        )
        free = self.draw(4, generator, steps=8)
        front = self.around(torch.full((4,), 0.6))
        seen = [self.pictures(look, c, k) for c, k in ((codes, cameras), (codes, back), (free, front))]
        sheet = torch.cat([torch.cat(list(row.flatten(0, 1)), 2) for row in [rgb, *seen]], 1)
        return {"samples": ((F.relu(sheet / 2 + 0.5)).clamp(max=1) * 255).byte().movedim(0, 2).cpu().numpy()}
