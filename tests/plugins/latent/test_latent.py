"""Scenes of latents: the fitted maps, what guidance gets, what people see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts import Context, Step
from core.errors import UserError
from core.guidance import Guidance
from core.testing import check_component, reference
from plugins.latent.latent import Latent
from plugins.nerf.volume import Volume

MIX = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))


class Linear(reference.GaussianPrior):
    """Five latents that are a linear function of colour at 8x8 pixels: the maps are exact, so they can be checked."""

    options, context = None, Context()

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        return 5, 8, 8

    def encode(self, rgb: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(rgb.movedim(-1, 1), 8)
        return torch.einsum("kc,bchw->bkhw", MIX, small) + 0.3

    def decode(self, latents: Tensor) -> Tensor:
        return torch.einsum("ck,bkhw->bhwc", torch.linalg.pinv(MIX), latents - 0.3).clamp(0, 1)


class Handle:
    """What a lift puts into ``context.parts["prior"]``."""

    loaded = 0

    def space(self) -> tuple[int, int, int]:
        return 5, 8, 8

    def load(self) -> Linear:
        self.loaded += 1
        return Linear()


def build(**options: Any) -> Latent:
    return Latent(Latent.Config(**options), Context(parts={"prior": Handle()}))


def test_it_keeps_its_contract() -> None:
    assert len(check_component("material", "latent")) >= 8


def test_colours_and_latents_map_to_one_another_and_the_prior_is_asked_once() -> None:
    material = build()
    assert material.feature_channels == 5
    for index in range(3):
        material.update(Step(index, 10))
    rgb = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    latents = rgb @ MIX.t() + 0.3
    torch.testing.assert_close(material.behind(rgb), latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(material(latents, rgb, rgb, None), rgb, rtol=1e-3, atol=1e-3)
    assert material.context.parts["prior"].loaded == 1
    other = build()
    other.load_state_dict(material.state_dict())
    other.update(Step(0, 10))
    assert other.context.parts["prior"].loaded == 0  # the maps came with the checkpoint


class Latents(reference.Ball):
    """A ball whose features are the latents of one colour."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        colour = torch.tensor([0.9, 0.2, 0.1]) @ MIX.t() + 0.3
        return super().field(points) | {"features": colour.expand(len(points), 5)}


def scene(**options: Any) -> Volume:
    material = build(**options)
    material.update(Step(0, 1))
    context = Context(parts={"geometry": Latents(), "material": material, "background": reference.Grey(None, Context())})
    return Volume(Volume.Config(samples=48), context)


def test_a_scene_of_latents_is_rendered_as_its_colours_would_be() -> None:
    with torch.no_grad():
        seen = scene(pictures="linear")(reference.cameras(16, 2), Step(0, 1))
    assert seen.extras["latent"].shape == (2, 16, 16, 5)
    # Everything is linear here: the latents are those of the colours that were rendered.
    torch.testing.assert_close(seen.extras["latent"], seen.rgb @ MIX.t() + 0.3, rtol=5e-3, atol=5e-3)
    assert float(seen.rgb[0, 8, 8, 0]) == pytest.approx(0.9, abs=0.02)
    torch.testing.assert_close(seen.rgb[:, 0, 0], torch.full((2, 3), 0.5), rtol=0, atol=5e-3)


def test_people_see_what_the_decoder_makes_of_it() -> None:
    volume = scene(pictures="decoded")
    with torch.no_grad():
        seen = volume(reference.cameras(32, 2))
        small = torch.nn.functional.adaptive_avg_pool2d(seen.extras["latent"].movedim(-1, 1), 8)
        wanted = torch.nn.functional.interpolate(Linear().decode(small).movedim(-1, 1), (32, 32), mode="bilinear")
    torch.testing.assert_close(seen.rgb, wanted.movedim(1, -1), rtol=1e-3, atol=1e-3)


def test_guidance_takes_latents_at_the_priors_size_and_number() -> None:
    guidance = Guidance.__new__(Guidance)
    guidance.prior = Linear()
    latents = torch.rand(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    found = guidance._fitting(latents)
    torch.testing.assert_close(found, torch.nn.functional.avg_pool2d(latents, 2))
    assert guidance._fitting(found) is found
    with pytest.raises(UserError, match="3 latent channels and the prior has 5"):
        guidance._fitting(torch.zeros(1, 3, 8, 8))


def test_the_embedded_prior_tells_its_space_without_loading() -> None:
    from plugins.embedded.prior import Embedded

    assert Embedded.space(Embedded.Config(), Context()) == (8, 16, 16)
