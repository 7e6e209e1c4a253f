"""Generator ``ib-planes``: diffusion over views of a scene that is rendered from planes of features at their cameras.

Anciukevičius et al. 2024, "Denoising Diffusion via Image-Based Rendering" (GIBR). A view is drawn from the planes of
the others: from its own plane it could be copied, and nothing would ask for a scene (representation dropout).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.config.base import ComponentSpec
from core.contracts import Scene, Step
from core.errors import UserError
from core.generative.rays import Rays, ball_crossing
from core.generative.through_rendering import Code, Look
from core.generative.viewsets import ViewsetConfig, ViewsetGenerator
from core.types import Cameras
from plugins.ib_planes.image_planes import ImagePlanes, looked_at
from plugins.ib_planes.network import NetworkConfig, PlanesNetwork

_SAME = 1e-5


class IBPlanes(ViewsetGenerator):
    """A set of ``views``, of which some are clean and the others share one level of noise."""

    class Config(ViewsetConfig):
        views: int = Field(4, ge=2)
        """Views that are seen together, clean and noisy, in training."""
        leave_out: bool = True
        """Draw each view without its own plane; without this, scenes look right from their own cameras alone."""
        drop: float = Field(0.1, ge=0, lt=1)
        """Share of the views in training that are drawn without one more plane."""
        network: NetworkConfig = NetworkConfig()
        """The network."""

    filled = ("planes",)

    def network(self, geometry: Any) -> nn.Module:
        o = self.options
        if geometry.options.size != self.size:
            raise UserError(
                f"geometry.size={geometry.options.size} must be data.size={self.size}: a feature for a pixel"
            )
        if any(w % 8 for w in o.network.widths):
            raise UserError(f"network.widths={o.network.widths}: each must be a multiple of 8")
        if self.size % (1 << (len(o.network.widths) - 1)):
            raise UserError(f"data.size={self.size} cannot be halved {len(o.network.widths) - 1} times")
        return PlanesNetwork(o.network, geometry.options.channels, self.size)

    def check(self) -> None:
        o = self.options
        kind = self.context.parts["registry"].find("geometry", o.geometry.name).load()
        if not issubclass(kind, ImagePlanes):
            raise UserError(f"geometry: ib-planes fills the geometry 'image-planes', not '{o.geometry.name}'")
        if len(o.clean) > o.views:
            raise UserError(
                f"clean has shares for up to {len(o.clean) - 1} clean views of views={o.views}: one must be noisy"
            )
        super().check()

    def noisy_beside(self, clean: int, generator: torch.Generator | None = None) -> int:
        return int(self.options.views - clean)

    def _errors(self, codes: Sequence[Code], rgb: Tensor, cameras: Cameras, step: Step) -> Tensor:
        draw, views = step.generator("planes"), rgb.shape[1]
        each = [self.from_views(code, range(views), self.options.rays, draw) for code in codes]
        return super()._errors(each, rgb, cameras, step)

    def from_views(self, code: Code, views: Iterable[int], rays: int, generator: torch.Generator | None = None) -> Code:
        """The scene for ``rays`` rays of each of some views, each view's :meth:`without` its own plane."""
        kept = torch.stack([self.without(code, view, generator)["keep"] for view in views])
        return code | {"keep": kept.repeat_interleave(rays, 0)}

    def rendered(
        self, look: Look, code: Code, origins: Tensor, directions: Tensor, generator: torch.Generator | None = None
    ) -> Rays:
        """As the base has it; ``keep`` may be a row for each ray."""
        if code["keep"].ndim == 2:
            near, far = self.span(code, origins, directions)
            code = code | {"keep": code["keep"][far > near].repeat_interleave(self.options.samples, 0)}
        return super().rendered(look, code, origins, directions, generator)

    def span(self, code: Code, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Within the ball that the geometry fills."""
        o = self.options.geometry.options
        return ball_crossing(origins, directions, looked_at(code["c2w"], o.middle), o.radius)

    def without(self, code: Code, view: int, generator: torch.Generator | None = None) -> Code:
        """The scene as ``view`` is drawn from it: without its own plane and, at times, with a ``generator``, without
        one more; at least one plane stays."""
        keep = code["keep"].clone()
        if self.options.leave_out and view < len(keep) and keep.sum() > 1:
            keep[view] = False
        if generator is not None and float(torch.rand((), generator=generator)) < self.options.drop and keep.sum() > 1:
            left = keep.nonzero()[:, 0]
            keep[left[int(torch.randint(len(left), (), generator=generator))]] = False
        return code | {"keep": keep}

    def pictures(self, look: Look, codes: Sequence[Code], cameras: Cameras) -> Tensor:
        """As the base has it; from a camera that has a plane, without that plane."""
        own = cameras.c2w.unflatten(0, (len(codes), -1))
        rays = cameras.height * cameras.width
        each = [
            self.from_views(code, (self._plane_of(code, c2w) for c2w in row), rays)
            for code, row in zip(codes, own, strict=True)
        ]
        return super().pictures(look, each, cameras)

    @staticmethod
    def _plane_of(code: Code, c2w: Tensor) -> int:
        """Which plane stands at a camera; one past the last where none does."""
        same = ((code["c2w"] - c2w).abs().amax((1, 2)) < _SAME).nonzero()
        return int(same[0]) if len(same) else len(code["c2w"])

    def scene(self, code: Code, name: str = "asset", prompt: str = "", spec: ComponentSpec | None = None) -> Scene:
        """All planes together."""
        given = spec or self.options.geometry
        views = len(code["planes"])
        own = replace(given, options=given.options.model_copy(update={"views": views}))
        return super().scene(code, name, prompt, own)
