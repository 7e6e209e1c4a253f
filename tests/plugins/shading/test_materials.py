"""Materials against their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.testing import check_component
from plugins.shading.diffuse import Diffuse
from plugins.shading.plain import Plain
from plugins.shading.textureless import Textureless

UP, DOWN = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, -1.0]])
ORIGIN, AHEAD = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
FEATURES = torch.tensor([[0.0, 2.0, -3.0, 9.0]])
ALBEDO = torch.sigmoid(FEATURES[:, :3])


def lit(cls: Any, normals: Tensor | None, at: Tensor | None, directions: Tensor = AHEAD, **options: Any) -> Tensor:
    return cls(cls.Config(**options), Context())(FEATURES, ORIGIN, directions, normals, at)


@pytest.mark.parametrize("name", ["plain", "diffuse", "textureless"])
def test_every_material_keeps_its_contract(name: str) -> None:
    assert len(check_component("material", name)) >= 8


def test_plain_is_the_sigmoid_of_the_first_three_features() -> None:
    torch.testing.assert_close(lit(Plain, None, None), ALBEDO)
    torch.testing.assert_close(lit(Plain, UP, UP), ALBEDO)


@pytest.mark.parametrize("degrees", [0.0, 60.0, 90.0, 120.0])
def test_diffuse_follows_lamberts_cosine(degrees: float) -> None:
    angle = torch.tensor(degrees).deg2rad()
    at = 5 * torch.stack([angle.sin(), torch.zeros(()), angle.cos()])[None]  # the distance does not matter
    wanted = 0.3 + 0.5 * max(0.0, float(angle.cos()))
    torch.testing.assert_close(lit(Diffuse, UP, at, ambient=0.3, light=0.5), ALBEDO * wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        lit(Textureless, UP, at, ambient=0.3, light=0.5), torch.full((1, 3), wanted), rtol=1e-5, atol=1e-6
    )


def test_the_point_light_is_at_a_place() -> None:
    material = Diffuse(Diffuse.Config(ambient=0.0, light=1.0), Context())
    points = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    light = torch.tensor([[0.0, 0.0, 4.0]]).expand(2, 3)
    shade = material.shade(points, AHEAD.expand(2, 3), UP.expand(2, 3), light)
    torch.testing.assert_close(shade[:, 0], torch.tensor([1.0, 0.8]))


def test_without_a_light_it_shines_from_the_camera() -> None:
    directions = F.normalize(torch.tensor([[0.6, 0.0, -0.8]]), dim=-1)
    torch.testing.assert_close(lit(Diffuse, UP, None, directions, ambient=0.2, light=0.5), ALBEDO * 0.6)
    torch.testing.assert_close(lit(Diffuse, DOWN, None, directions, ambient=0.2, light=0.5), ALBEDO * 0.2)


def test_without_normals_nothing_is_shaded() -> None:
    torch.testing.assert_close(lit(Diffuse, None, UP), ALBEDO)
    torch.testing.assert_close(lit(Textureless, None, UP), torch.ones(1, 3))


def test_what_is_too_bright_is_clipped() -> None:
    assert float(lit(Diffuse, UP, UP, ambient=1.0, light=5.0).max()) == 1.0
    assert float(lit(Textureless, UP, UP, ambient=1.0, light=5.0).max()) == 1.0


def test_textureless_ignores_the_features_and_only_plain_needs_no_normals() -> None:
    made = Textureless(Textureless.Config(), Context())
    a, b = (made(f, ORIGIN, AHEAD, UP, UP) for f in (FEATURES, -FEATURES))
    assert torch.equal(a, b)
    assert (Plain.needs_normal, Diffuse.needs_normal, Textureless.needs_normal) == (False, True, True)
