"""What ``diffuse`` may show instead of its plain self while training; colours beside latents."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from core.contracts import Context, Step
from core.errors import UserError
from core.testing import check_component
from plugins.latent.hybrid import HybridLatent
from plugins.shading.diffuse import Diffuse

UP, SIDE, ORIGIN = torch.tensor([[0.0, 0, 1]]), torch.tensor([[1.0, 0, 0]]), torch.zeros(1, 3)
FEATURES = torch.tensor([[1.0, 0.0, -2.0]])
ALBEDO = torch.sigmoid(FEATURES)


def shown(material: Diffuse, step: int) -> torch.Tensor:
    material.update(Step(step, 500, seed=3))
    return material(FEATURES, ORIGIN, SIDE, UP, 5 * SIDE)  # the light grazes: ambient alone


def test_shares_of_the_steps_show_albedo_or_a_white_object() -> None:
    made = Diffuse(Diffuse.Config(ambient=0.25, light=0.5, unlit=0.3, textureless=0.2), Context())
    wanted = {"unlit": ALBEDO, "textureless": torch.full((1, 3), 0.25), "lit": 0.25 * ALBEDO}
    seen = dict.fromkeys(wanted, 0)
    for step in range(400):
        found = shown(made, step)
        torch.testing.assert_close(found, wanted[made._mode], atol=1e-3, rtol=0)
        seen[made._mode] += 1
        assert torch.equal(found, shown(made, step))
    assert 90 < seen["unlit"] < 150 and 50 < seen["textureless"] < 110
    with torch.no_grad():
        torch.testing.assert_close(shown(made, 0), wanted["lit"])
        assert all(torch.equal(shown(made, s), shown(made, 0)) for s in range(20))


def test_the_light_may_come_on_later() -> None:
    made = Diffuse(
        Diffuse.Config(ambient=0.25, light=0.5, unlit={"points": {99: 1.0, 100: 0.0}}, textureless=0.5), Context()
    )
    assert all(torch.equal(shown(made, step), ALBEDO) for step in range(100))
    assert not any(torch.equal(shown(made, step), ALBEDO) for step in range(100, 200))
    with pytest.raises(ValidationError, match="unlit: expected a share in"):
        Diffuse.Config(unlit={"from": 0.5, "to": 1.5})


def test_soft_light_lies_between_the_lit_and_the_evenly_lit_object() -> None:
    made = Diffuse(Diffuse.Config(ambient=0.2, light=0.6, soft=True), Context())
    found = torch.stack([shown(made, s)[0] / ALBEDO[0] for s in range(100)])
    assert float(found.min()) >= 0.2 - 1e-5 and float(found.max()) <= 0.8 + 1e-5
    assert abs(float(found.mean()) - 0.5) < 0.06 and float(found.std()) > 0.1
    with pytest.raises(ValidationError, match="shares of all steps"):
        Diffuse.Config(unlit=0.7, textureless=0.7)


def test_colours_and_latents_side_by_side() -> None:
    assert len(check_component("material", "hybrid-latent")) >= 8
    made = HybridLatent(HybridLatent.Config(), Context())
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(features, features, features, None), torch.sigmoid(features[:, :3]))
    assert torch.equal(made.latents(features), features[:, 3:]) and made.picture(features) is None
    with pytest.raises(UserError, match="reads 7 features .* gives 3; set geometry.channels=7"):
        made(features[:, :3], features, features, None)
