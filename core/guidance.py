"""A guidance of a lift: a prior, what it is shown of the scene, and the score that turns its prediction into a loss."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from core.asked import Asked
from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.contracts import Context, Geometry, Prior, Score, Step
from core.errors import UserError
from core.types import Render


class GuidanceConfig(BaseConfig):
    """One guidance: a prior, the score that turns its prediction into a gradient, and a weight."""

    prior: Annotated[ComponentSpec, Slot("prior")]
    """The diffusion model that knows what things look like."""
    score: Annotated[ComponentSpec, Slot("score")]
    """How its prediction becomes a gradient."""
    sees: Literal["colour", "normals", "normals-as-latents", "shape"] = "colour"
    """What it is shown: colours (or rendered latents), normals as colours, normals and opacity as latents; by a prior
    over shapes: the geometry itself."""
    weight: Schedule = Schedule([(0, 1.0)])
    """Multiplies the score's loss."""


class Guidance:
    """A built guidance. The prior is no submodule: its weights are files already and stay out of checkpoints."""

    def __init__(self, config: GuidanceConfig, context: Context, score: Score) -> None:
        build: Any = context.build
        check_sees(config, context)
        self.prior: Prior = build(config.prior).to(context.device).eval().requires_grad_(False)
        self.geometry: Geometry | None = context.parts.get("geometry")
        self.score = score
        self.weight, self.sees = config.weight, config.sees

    def loss(self, render: Render, asked: Asked, step: Step) -> Tensor:
        """The weighted loss of one batch of views."""
        if self.sees == "shape":
            latents = self.prior.encode_shape(self.geometry, step)  # type: ignore[arg-type]
            told, untold, away = asked.of_shapes(self.prior, len(latents))
        else:
            latents = self._latents(render)
            told, untold, away = asked.conditions(self.prior, render.cameras, render)
        weight = self.weight.at(step.index, step.total)
        # Handed over only where there is any: a score need not know of Perp-Neg.
        further: dict[str, Any] = {"away": away} if away else {}
        if self.score.sees_render:
            further["render"] = render
        return weight * self.score.loss(self.prior, latents, told, untold, step, **further)

    def _latents(self, render: Render) -> Tensor:
        """[B, C, h, w] what the score works on. Normals in place of latents are followed by the opacity, then by zeros
        (Chen et al. 2023, "Fantasia3D", section 3.2, whose prior has four channels)."""
        if self.sees == "colour":
            latent = render.extras.get("latent")  # [B, h, w, C], already in the prior's space
            return self.prior.encode(render.rgb) if latent is None else self._fitting(latent.movedim(-1, 1))
        normal: Any = render.normal  # the task's signals ask for it
        if self.sees == "normals":
            return self.prior.encode(normal * 0.5 + 0.5)
        missing = self.prior.space(self.prior.options, self.prior.context)[0] - 4
        return self._fitting(F.pad(torch.cat([normal, render.opacity], -1), (0, max(missing, 0))).movedim(-1, 1))

    def _fitting(self, latents: Tensor) -> Tensor:
        """[B, C, h, w] at the size that the prior works at.

        Raises:
            UserError: rendered latents of another number of channels than the prior's.
        """
        channels, *size = self.prior.space(self.prior.options, self.prior.context)
        if latents.shape[1] != channels:
            raise UserError(
                f"the scene renders {latents.shape[1]} latent channels and the prior has {channels}; set "
                "geometry.channels=latent"
            )
        return latents if list(latents.shape[2:]) == size else F.interpolate(latents, size, mode="area")


def check_sees(config: GuidanceConfig, context: Context) -> None:
    """Refuse, before it is loaded, a prior over shapes that is shown pictures, and one over pictures shown a shape.

    Raises:
        UserError: with the value of ``sees`` that fits.
    """
    kind: type[Prior] = context.parts["registry"].find("prior", config.prior.name).load()
    if kind.shapes and config.sees != "shape":
        raise UserError(f"the prior '{config.prior.name}' knows shapes, not pictures; set sees: shape for its guidance")
    if config.sees == "shape" and not kind.shapes:
        raise UserError(f"the prior '{config.prior.name}' knows pictures, not shapes; sees: shape is not for it")
