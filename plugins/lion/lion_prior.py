"""Prior ``lion-prior``: what a fitted lion knows of shapes guides another geometry, in the lion's own space.

Points of the scene as it is now (its Gaussians' centres, or its surface) are encoded to both latents, and both score
models say where they would go: score distillation in a latent space of shapes, beside whatever 2D priors see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from core.config.base import Config as BaseConfig
from core.contracts import Context, Geometry, Prior, Step
from core.diffusion.process import DiffusionProcess
from core.errors import UserError
from core.generative.drawing import ask
from core.meshing.sampling import sample_surface
from core.types import Cameras, Condition, Views
from plugins.lion.fitted import fitted
from plugins.lion.lion import Lion
from plugins.lion.sampling import Latents, told_model

STEPS = 1000
"""Timesteps that continuous time is cut into, as the published models count them."""


class LionPrior(Prior):
    """Both score models as one: their space is ``z`` and ``h`` of a shape in a row, [B, D + N (3 + F)].

    The local model is told ``z`` as it is before noise, as in training: that of the shape encoded last. Both hear one
    time.
    """

    shapes = True

    class Config(BaseConfig):
        run: Path
        """The folder of a run that fitted a lion."""
        guidance: float = Field(1.0, ge=0)
        """Its own classifier-free guidance towards the sentence; the score's ``scale`` should then be 1."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.lion: Lion = fitted(options.run, context, "prior.run")
        if not self.lion.has_prior:
            raise UserError(f"prior.run: {options.run} has fitted the autoencoder alone so far, so it knows no shapes")
        geometry = context.parts.get("geometry")
        if geometry is not None and not _gives(geometry, "splats") and not _gives(geometry, "surface"):
            raise UserError(
                "the prior 'lion-prior' looks at Gaussians or at a surface, and "
                f"{type(geometry).__name__} has neither; splats and tetrahedra do"
            )
        times = (torch.arange(STEPS, dtype=torch.float64) + 1) / STEPS
        self.process = DiffusionProcess(self.lion.sde.alpha(times).square())
        self._whole: Tensor | None = None

    def encode(self, rgb: Tensor) -> Tensor:
        raise UserError("the prior 'lion-prior' knows shapes, not pictures; set sees: shape for its guidance")

    def encode_shape(self, geometry: Geometry, step: Step | None = None) -> Tensor:
        """[1, D + N (3 + F)]: the posterior's means, of N points that are drawn anew in each step.

        Raises:
            UserError: neither Gaussians nor a surface, or an empty one.
        """
        net = self.lion.average.model["vae"]
        random = torch.Generator().manual_seed(0) if step is None else step.generator("lion-prior")
        x = self.lion.normalised(self._points(geometry, random)[None])
        z = net.encode_shape(x, torch.zeros).mean
        h = net.encode_points(x, z, torch.zeros).mean
        self._whole = z.detach()
        return torch.cat([z, h.flatten(1)], 1)

    def _points(self, geometry: Geometry, random: torch.Generator) -> Tensor:
        """[N, 3] world points, as many as the lion knows: of Gaussians the more opaque ones rather."""
        count = self.lion.options.data.options.points
        if not _gives(geometry, "splats"):
            return sample_surface(geometry.surface(), count, random).positions
        splats = geometry.splats()
        share = splats.opacities.detach().double().cpu().clamp(min=1e-9)
        chosen = torch.multinomial(share, count, replacement=len(share) < count, generator=random)
        return splats.means[chosen.to(splats.means.device)]

    def decode(self, latents: Tensor) -> Tensor:
        """World points [B, N, 3] that latents stand for."""
        return self.lion.decode(Latents(*self._parts(latents))).points

    def _parts(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` [B, D] and ``h`` [B, N, 3 + F]."""
        o = self.lion.options.vae
        return latents[:, : o.size], latents[:, o.size :].unflatten(1, (-1, 3 + o.features))

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        """What the lion is told of each text: its class or its words; of an empty one, nothing."""
        lion = self.lion
        rows = [self._told(text) for text in texts]
        return Condition(text=torch.cat(rows)[:, None].to(lion.device) if lion.conditions.width else None)

    def _told(self, text: str) -> Tensor:
        lion = self.lion
        if not text or not lion.conditions.width:
            return torch.zeros(1, lion.conditions.width)
        told = lion.conditions.of_asked(ask(text), 1, torch.Generator())  # which nothing is drawn from, for a text
        assert told is not None
        return told

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        lion, told = self.lion, None if condition.text is None else condition.text[:, 0]
        model, scale, time = lion.average.model, self.options.guidance, (t.to(noisy) + 1) / STEPS
        z, h = self._parts(noisy)
        whole = z if self._whole is None else self._whole.expand_as(z)
        points = told_model(model["points"], scale, told, whole)(h, time).flatten(1)
        shape = told_model(model["shape"], scale, told)(z, time) if lion.options.hierarchical else torch.zeros_like(z)
        return torch.cat([shape, points], 1)


def _gives(geometry: Geometry, what: str) -> bool:
    """Whether a geometry has its own ``splats`` or ``surface``."""
    return getattr(type(geometry), what) is not getattr(Geometry, what)
