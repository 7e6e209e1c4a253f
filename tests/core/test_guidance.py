"""What a guidance shows its prior: colours, normals, or the shape itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.asked import Asked, PictureConfig
from core.config.base import ComponentSpec
from core.contracts import Context, Geometry, Prior, Step
from core.diffusion.process import DiffusionProcess
from core.discovery import get_registry
from core.errors import UserError
from core.guidance import Guidance, GuidanceConfig, check_sees
from core.testing.check import make_options
from core.types import Cameras, Condition, Render


@pytest.mark.parametrize("sees", ["colour", "normals", "normals-as-latents"])
def test_what_a_guidance_is_shown(sees: str) -> None:
    class Doubles:
        options = context = None

        def encode(self, rgb: Tensor) -> Tensor:
            return 2 * rgb.movedim(-1, 1)

        def space(self, options: Any, context: Any) -> tuple[int, int, int]:
            return 6, 4, 4

    generator = torch.Generator().manual_seed(0)
    rgb, opacity = torch.rand(2, 8, 8, 3, generator=generator), torch.rand(2, 8, 8, 1, generator=generator)
    normal = torch.rand(2, 8, 8, 3, generator=generator) - 0.5
    turns = torch.zeros(2)
    cameras = Cameras.orbit(turns, turns, torch.full((2,), 3.0), torch.full((2,), 0.7), 8, 8)
    guidance: Any = Guidance.__new__(Guidance)
    guidance.prior, guidance.sees = Doubles(), sees
    found = guidance._latents(Render(rgb, opacity, cameras, normal=normal))
    if sees == "normals-as-latents":
        assert found.shape == (2, 6, 4, 4)
        cells = torch.cat([normal, opacity], -1).view(2, 4, 2, 4, 2, 4).mean((2, 4)).movedim(-1, 1)
        torch.testing.assert_close(found[:, :4], cells)
        assert not found[:, 4:].any()
    else:
        torch.testing.assert_close(found, 2 * (rgb if sees == "colour" else normal / 2 + 0.5).movedim(-1, 1))


class Balls(Prior):
    """The exact diffusion model of N(mean, 0.1^2) over signed distances at 27 points: balls of radius 0.5."""

    shapes = True
    points = torch.cartesian_prod(*[torch.tensor([-0.8, 0.0, 0.8])] * 3)

    def __init__(self) -> None:
        super().__init__(None, Context())
        self.process = DiffusionProcess(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0))
        self.heard: list[Any] = []

    def encode(self, rgb: Tensor) -> Tensor:
        pytest.fail("a prior over shapes was shown a picture")

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def encode_shape(self, geometry: Geometry, step: Step | None = None) -> Tensor:
        return geometry.sdf(self.points).view(1, 1, 3, 3, 3)

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Any = None) -> Condition:
        self.heard.append((texts, cameras))
        return Condition(text=torch.zeros(len(texts), 1, 1))

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        a, s = self.process.scales(t, noisy)
        return s * (noisy - a * self.mean()) / (s**2 + 0.01 * a**2)

    def mean(self) -> Tensor:
        return (self.points.norm(dim=-1) - 0.5).view(1, 1, 3, 3, 3)


class Lattice(Geometry):
    """Signed distances that are parameters."""

    def __init__(self) -> None:
        super().__init__(None, Context())
        self.values = nn.Parameter(torch.zeros(27))

    def sdf(self, points: Tensor) -> Tensor:
        return self.values


def test_a_prior_over_shapes_leads_the_geometry_itself() -> None:
    registry, prior, lattice = get_registry(), Balls(), Lattice()
    entry = registry.find("score", "sds")
    score = entry.load()(make_options(entry, entry.load(), registry, {"scale": 1.0}), Context())
    guidance: Any = Guidance.__new__(Guidance)
    guidance.prior, guidance.score, guidance.geometry, guidance.sees = prior, score, lattice, "shape"
    guidance.weight = GuidanceConfig.model_fields["weight"].default
    asked = Asked("a ball", "a cube", None, None, PictureConfig())  # type: ignore[arg-type]
    nothing_seen: Any = None
    optimizer = torch.optim.Adam([lattice.values], lr=0.05)
    for k in range(150):
        optimizer.zero_grad()
        guidance.loss(nothing_seen, asked, Step(k, 150, 0)).backward()
        optimizer.step()
    before, after = prior.mean().flatten(), lattice.values.detach() - prior.mean().flatten()
    assert after.abs().mean() < 0.1 * before.abs().mean()
    assert prior.heard[0] == (["a ball"], None) and prior.heard[1] == (["a cube"], None)


@pytest.mark.parametrize(
    ("shapes", "sees", "word"), [(True, "colour", "set sees: shape"), (False, "shape", "knows pictures, not shapes")]
)
def test_a_prior_and_what_it_is_shown_must_fit(shapes: bool, sees: str, word: str) -> None:
    kind = type("Kind", (Balls,), {"shapes": shapes})
    context = Context()
    context.parts["registry"] = SimpleNamespace(find=lambda *_: SimpleNamespace(load=lambda: kind))
    config = SimpleNamespace(prior=ComponentSpec("prior", "balls", None), sees=sees)
    with pytest.raises(UserError, match=word):
        check_sees(config, context)  # type: ignore[arg-type]
