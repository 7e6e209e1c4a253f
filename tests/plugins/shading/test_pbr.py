"""Split-sum lighting against Monte-Carlo integrals of the full reflection equation, and the view-dependent material."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.errors import UserError
from core.panorama import environment, look_up, to_linear, to_srgb
from core.testing import check_component
from plugins.shading import split_sum
from plugins.shading.neural_radiance import NeuralRadiance
from plugins.shading.pbr import Pbr


def pbr(**options: Any) -> Pbr:
    return Pbr(Pbr.Config(**options), Context())


def hemisphere(count: int, seed: int = 0) -> Tensor:
    """[count, 3] uniform directions with z > 0, stratified in height."""
    random = torch.Generator().manual_seed(seed)
    z = (torch.arange(count).double() + torch.rand(count, generator=random, dtype=torch.float64)) / count
    phi = torch.rand(count, generator=random, dtype=torch.float64) * 2 * math.pi
    r = (1 - z.square()).sqrt()
    return torch.stack([r * phi.cos(), r * phi.sin(), z], -1)


def ggx(light: Tensor, view: Tensor, rough: float, f0: float) -> Tensor:
    """[N] the Cook-Torrance BRDF times the cosine, written out from its definition, normal +z."""
    half = F.normalize(light + view, dim=-1)
    a2 = rough**4
    d = a2 / (math.pi * (half[:, 2].square() * (a2 - 1) + 1).square())

    def lam(cosine: Tensor) -> Tensor:
        return (-1 + torch.sqrt(1 + a2 * (1 / cosine.square() - 1))) / 2

    g = 1 / (1 + lam(light[:, 2]) + lam(view[2].expand(len(light))))
    fresnel = f0 + (1 - f0) * (1 - (view * half).sum(-1)).clamp(min=0) ** 5
    return d * g * fresnel / (4 * view[2])  # the light's cosine cancels with that in the denominator


@pytest.mark.parametrize("name", ["pbr", "neural-radiance"])
def test_they_keep_their_contract(name: str) -> None:
    assert len(check_component("material", name)) >= 12


@pytest.mark.parametrize(("rough", "cosine"), [(0.3, 0.8), (0.5, 0.3), (0.7, 0.6), (1.0, 0.9)])
def test_the_table_holds_the_integral_of_the_lobe(rough: float, cosine: float) -> None:
    view = torch.tensor([math.sqrt(1 - cosine**2), 0, cosine], dtype=torch.float64)
    light = hemisphere(400_000)
    found = pbr()._brdf(torch.tensor([[cosine]]), torch.tensor([[rough]]))[0]
    for f0 in (0.04, 0.6, 1.0):
        wanted = float(ggx(light, view, rough, f0).mean()) * 2 * math.pi
        assert float(f0 * found[0] + found[1]) == pytest.approx(wanted, rel=0.02, abs=0.003)


@pytest.mark.parametrize("name", ["studio", "sky"])
def test_diffuse_light_is_the_cosine_weighted_integral(name: str) -> None:
    light = hemisphere(200_000, 1).float()
    for normal in ([0.0, 0, 1], [0.6, 0.0, 0.8], [-0.3, 0.9, -0.3]):
        axis = F.normalize(torch.tensor(normal), dim=0)
        world = light @ split_sum._frames(axis).T
        wanted = 2 * (environment(name, world) * light[:, 2:]).mean(0)  # pdf 1 / 2 pi, divided by pi
        found = look_up(split_sum.irradiance(name), axis[None])[0]
        torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.01)


@pytest.mark.parametrize("name", ["studio", "sky"])
@pytest.mark.parametrize("rough", [0.4, 0.6, 1.0])
def test_seen_along_the_normal_the_split_sum_is_the_whole_integral(name: str, rough: float) -> None:
    """There its only assumption (view = normal) holds: reflected light of a metal agrees with brute force."""
    normal = F.normalize(torch.tensor([0.5, 0.3, 0.6]), dim=0)
    light = hemisphere(400_000, 2)
    value = ggx(light, torch.tensor([0.0, 0, 1], dtype=torch.float64), rough, 0.9)
    world = light.float() @ split_sum._frames(normal).T
    wanted = 2 * math.pi * (environment(name, world) * value[:, None].float()).mean(0)
    grey = float(to_srgb(torch.tensor(0.9)))
    maps = {"base_color": torch.full((1, 3), grey), "roughness": torch.tensor([[rough]]), "metallic": torch.ones(1, 1)}
    found = pbr(environment=name).radiance(maps, normal[None], normal[None])[0]
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.01)


def test_a_mirror_shows_the_environment_and_a_dielectric_its_colour() -> None:
    made = pbr(environment="sky")
    normal, view = torch.tensor([[0.0, 0, 1]]), F.normalize(torch.tensor([[0.6, 0.3, 0.9]]), dim=-1)
    mirror = {"base_color": torch.ones(1, 3), "roughness": torch.zeros(1, 1), "metallic": torch.ones(1, 1)}
    seen = made.radiance(mirror, view, normal)
    reflected = environment("sky", view * torch.tensor([-1.0, -1, 1]))
    torch.testing.assert_close(seen, reflected, rtol=0.08, atol=0.02)
    rough = {**mirror, "base_color": torch.tensor([[0.8, 0.1, 0.1]]), "roughness": torch.ones(1, 1), "metallic": torch.zeros(1, 1)}
    red = made.radiance(rough, view, normal)[0]
    assert float(red[0]) > 4 * float(red[1]) and bool((red > 0.5 * 0.04 * reflected[0]).all())


def test_features_become_maps_within_their_bounds_and_too_few_are_refused() -> None:
    made = pbr(roughness=(0.2, 0.9), metallic=(0.0, 0.5))
    maps = made.maps(torch.tensor([[0.0, 5, -5, 100, -100], [0, 0, 0, -100, 100]]))
    assert maps["roughness"][:, 0].tolist() == pytest.approx([0.9, 0.2])
    assert maps["metallic"][:, 0].tolist() == pytest.approx([0.0, 0.5])
    torch.testing.assert_close(maps["base_color"][0], torch.sigmoid(torch.tensor([0.0, 5, -5])))
    with pytest.raises(UserError, match="reads 5 features .* gives 3; set geometry.channels=5"):
        made(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3))


def test_a_white_surface_in_the_studio_is_bright_but_not_burnt_out() -> None:
    made = pbr()
    normals = F.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    features = torch.tensor([[6.0, 6, 6, 2, -6]]).expand(500, 5)
    seen = made(features, normals, -normals, normals)
    assert 0.5 < float(seen.mean()) < 0.95
    assert float((seen > 0.999).float().mean()) < 0.1
    assert float(to_linear(seen).std()) > 0.03  # its form can be seen


def test_a_view_dependent_colour_starts_plain_and_learns_a_highlight() -> None:
    made = NeuralRadiance(NeuralRadiance.Config(), Context(seed=1))
    random = torch.Generator().manual_seed(0)
    features = torch.randn(400, 3, generator=random)
    ways = F.normalize(torch.randn(400, 3, generator=random), dim=-1)
    torch.testing.assert_close(made(features, ways, ways, None), torch.sigmoid(features))
    wanted = torch.sigmoid(features) * 0.5 + 0.5 * (ways[:, 2:] > 0.5)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(150):
        loss = (made(features, ways, ways, None) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.25 * float((torch.sigmoid(features) - wanted).square().mean())
    with pytest.raises(UserError, match="reads 3 features"):
        made(features[:, :2], ways, ways, None)
