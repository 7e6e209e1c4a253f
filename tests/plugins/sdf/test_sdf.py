"""The signed distance field: densities against their formulas, normals, the eikonal term, pictures, taking over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core import fields, losses
from core.contracts import Background, Context, Geometry, Material, Step
from core.errors import UserError
from core.testing import check_component
from core.testing.reference import Ball
from core.types import Cameras, Mesh, Render
from plugins.nerf.volume import Volume
from plugins.sdf.sdf import SDF, laplace, logistic, section

SMALL = {"levels": 3, "log2_table": 9, "finest": 16, "hidden": 8}


def build(seed: int = 0, **options: Any) -> SDF:
    return SDF(SDF.Config(**SMALL | options), Context(seed=seed))


def bumpy(seed: int = 0, **options: Any) -> SDF:
    """With a network that has something to say."""
    sdf = build(seed, **options)
    with torch.no_grad():
        sdf.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
        sdf.second.weight[0].uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(2))
    return sdf


def cube(count: int = 300, side: float = 0.95) -> Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * side


@pytest.mark.parametrize("density", ["volsdf", "neus"])
def test_it_keeps_its_contract(density: str) -> None:
    assert len(check_component("geometry", "sdf", options=SMALL | {"density": density})) >= 20


def test_volsdf_s_density_is_the_laplace_distribution() -> None:
    distance = torch.linspace(-0.3, 0.3, 101, dtype=torch.float64)
    for beta in (0.01, 0.1):
        below = 0.5 * torch.exp(-distance / beta)
        wanted = torch.where(distance >= 0, below, 1 - 0.5 * torch.exp(distance / beta)) / beta
        torch.testing.assert_close(laplace(distance, torch.tensor(beta).double()), wanted)
        found = laplace(distance.float(), torch.tensor(beta))
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_neus_s_opacity_is_that_of_its_paper() -> None:
    """alpha = (Phi(f0) - Phi(f1)) / Phi(f0), eq. 13, at distances where the quotient itself is accurate."""
    f0 = torch.linspace(-0.1, 0.2, 40, dtype=torch.float64)
    for change in (-0.05, 0.05):
        f1 = f0 + change
        for width in (0.01, 0.05):
            phi0, phi1 = torch.sigmoid(f0 / width), torch.sigmoid(f1 / width)
            alpha = ((phi0 - phi1) / phi0).clamp(min=0)
            density = section(f0, f1, torch.full_like(f0, 0.05), torch.tensor(width).double())
            torch.testing.assert_close(1 - torch.exp(-density * 0.05), alpha, rtol=1e-8, atol=1e-8)
    deep = section(torch.tensor([-10.0]), torch.tensor([-10.1]), torch.tensor([0.1]), torch.tensor(0.01))
    torch.testing.assert_close(deep, torch.tensor([100.0]), rtol=1e-4, atol=0)  # no 0 / 0 inside: s per unit of length


def test_neus_s_section_is_the_integral_of_its_density_head_on() -> None:
    width, t = torch.tensor(0.03).double(), torch.linspace(0, 0.2, 20001, dtype=torch.float64)
    distance = 0.1 - t  # a ray that meets a plane head-on
    integral = torch.trapezoid(logistic(distance, width), t)
    mean = section(distance[:1], distance[-1:], torch.tensor([0.2]).double(), width)
    assert float(mean * 0.2) == pytest.approx(float(integral), rel=1e-6)


def test_neus_sees_what_a_ray_enters_and_not_what_it_leaves() -> None:
    sdf = build(density="neus", width=0.02)
    points = torch.tensor([[0.5, 0.0, 0.0]]).expand(3, 3)
    directions = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    with torch.no_grad():
        found = sdf.along(points, directions, torch.full((3,), 0.02))["density"]
    wanted = (F.logsigmoid(torch.tensor(0.5)) - F.logsigmoid(torch.tensor(-0.5))) / 0.02
    assert float(found[0]) == pytest.approx(float(wanted), rel=0.03)
    assert float(found[1]) == 0.0 and float(found[2]) < 0.03 * float(wanted)


def test_the_width_is_annealed_or_learned() -> None:
    sdf = build(width={"from": 0.1, "to": 0.02})
    sdf.update(Step(50, 101))
    assert float(sdf.width) == pytest.approx(0.06)
    other = build(seed=1, width=0.1)
    other.load_state_dict(sdf.state_dict())
    assert float(other.width) == pytest.approx(0.06)
    learned = build(width=0.05, learn_width=True)
    learned.update(Step(50, 101))
    assert float(learned.width.detach()) == pytest.approx(0.05)
    learned.density(cube()).sum().backward()
    assert learned.log_width.grad is not None and float(learned.log_width.grad) != 0
    assert build(learn_width=True, width_lr=0.1).param_groups()[-1]["lr_scale"] == 0.1


@pytest.mark.parametrize("normals", ["analytic", "finite-difference"])
def test_normals_point_outwards(normals: str) -> None:
    """Regression: analytic normals that point inwards (D1)."""
    sdf, points = build(normals=normals), cube()
    points = points[points.norm(dim=-1) > 0.2]
    aligned = (sdf.normals(points).detach() * F.normalize(points, dim=-1)).sum(-1)
    assert float(aligned.min()) > 0.99 and float(aligned.mean()) > 0.999
    torch.testing.assert_close(sdf.normals(points).norm(dim=-1), torch.ones(len(points)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normals", ["analytic", "finite-difference"])
def test_slopes_are_those_of_the_distance(normals: str) -> None:
    sdf, points = bumpy(normals=normals), cube()
    step = 0.5 * sdf.cell if normals == "finite-difference" else 1e-3
    with torch.no_grad():
        moves = torch.eye(3) * step
        wanted = torch.stack([(sdf.sdf(points + m) - sdf.sdf(points - m)) / (2 * step) for m in moves], -1)
        found = sdf.slope(points)
    error = (found - wanted).norm(dim=-1)
    assert float(error.median()) < 1e-3 and float((error < 0.05).float().mean()) > 0.85  # cells' sides in between


def test_an_exception_leaves_gradients_and_points_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: autograd left on, the caller's tensor changed (D15)."""
    sdf, points = build(), cube()

    def broken(self: SDF, points: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(SDF, "raw", broken)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="out of memory"):
            sdf.normals(points)
        assert not torch.is_grad_enabled()
    assert not points.requires_grad
    monkeypatch.undo()
    sdf.normals(points)
    assert not points.requires_grad and points.grad is None


def views(size: int = 24) -> Cameras:
    a, e = torch.tensor([0.4, 2.5]), torch.tensor([0.3, -0.8])
    return Cameras.orbit(a, e, torch.full((2,), 3.0), torch.full((2,), 0.7), size, size)


def test_the_eikonal_term_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    sdf = bumpy(eikonal_points=600)
    with torch.no_grad():
        seen = renderer(sdf, samples=48)(views(16))
    render = Render(seen.rgb, seen.opacity, seen.cameras, seen.depth)
    render.extras["sdf-gradient"] = sdf.extra("sdf-gradient", render, Step(0, 10))
    found = losses.eikonal(render, Step(0, 10))
    found.backward()
    assert sdf.table.grad is not None and bool((sdf.table.grad != 0).any())
    monkeypatch.setattr(SDF, "slope", lambda self, points: points)
    points = sdf.extra("sdf-gradient", render, Step(0, 10))
    assert points.shape == (600, 3) and float(points.abs().max()) <= 1
    distance = points[300:].norm(dim=-1)  # the second half lies round what is seen: the sphere of radius 0.5
    assert float((distance - 0.5).abs().median()) < 0.15
    h = 1e-3
    with torch.no_grad():
        moves = torch.eye(3) * h
        slope = torch.stack([(sdf.sdf(points + m) - sdf.sdf(points - m)) / (2 * h) for m in moves], -1)
    wanted = (slope.norm(dim=-1) - 1).square().mean()
    assert float(found.detach()) == pytest.approx(float(wanted), rel=0.05)


def test_the_eikonal_term_of_a_distance_is_nothing() -> None:
    render = Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1), views(2))
    render.extras["sdf-gradient"] = build().extra("sdf-gradient", render, Step(0, 10))
    assert float(losses.eikonal(render, Step(0, 10)).detach()) < 1e-3


class White(Material):
    """One colour."""

    def forward(self, features: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.ones(len(features), 3)


class Black(Background):
    """None."""

    def forward(self, directions: Tensor) -> Tensor:
        return torch.zeros_like(directions)


def renderer(geometry: Geometry, **options: Any) -> Volume:
    context = Context()
    context.parts |= {"geometry": geometry, "material": White(None, context), "background": Black(None, context)}
    return Volume(Volume.Config(**{"samples": 192} | options), context)


@pytest.mark.parametrize("density", ["volsdf", "neus"])
def test_a_sphere_is_seen_with_its_outline_depth_and_normals(density: str) -> None:
    cameras = views(32)
    with torch.no_grad():
        seen = renderer(build(density=density, width=0.006, radius=0.6))(cameras)
    origins, directions = cameras.rays()
    middle = -(origins * directions).sum(-1, keepdim=True)
    impact = (origins + middle * directions).norm(dim=-1, keepdim=True)
    cosine = -(directions * cameras.c2w[:, None, None, :3, 2]).sum(-1, keepdim=True)
    assert float(seen.opacity[impact < 0.57].min()) > 0.98 and float(seen.opacity[impact > 0.65].max()) < 0.02
    inner = impact < 0.5
    wanted = (middle - (0.36 - impact.square()).clamp(min=0).sqrt()) * cosine
    assert seen.depth is not None and seen.normal is not None
    assert float((seen.depth - wanted)[inner].abs().max()) < 0.02
    place = F.normalize(origins + directions * wanted / cosine, dim=-1)
    aligned = (F.normalize(seen.normal, dim=-1) * place).sum(-1)[inner[..., 0]]
    assert float(aligned.min()) > 0.99


def test_normals_while_training_are_its_own() -> None:
    sdf = bumpy()
    render = renderer(sdf, samples=24, normals=True)(views(6), Step(0, 1))
    assert render.normal is not None
    (render.normal * torch.linspace(0, 1, 6)[:, None]).sum().backward()
    assert sdf.table.grad is not None and bool(torch.isfinite(sdf.table.grad).all())


class Cloud(Geometry):
    """A ball as a density alone."""

    def __init__(self, height: float = 60.0) -> None:
        super().__init__(None, Context())
        self.height = height

    def field(self, points: Tensor) -> dict[str, Tensor]:
        density = self.height * torch.sigmoid((0.45 - points.norm(dim=-1)) / 0.005)
        return {"density": density, "features": points.clone()}


class Shell(Geometry):
    """A ball as a mesh alone."""

    def mesh(self, resolution: int) -> Mesh:
        return Ball().mesh(resolution)


def test_it_takes_over_distances_densities_and_meshes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "FIT_STEPS", 60)
    monkeypatch.setattr(fields, "FIT_POINTS", 2048)
    points = cube()
    radius = points.norm(dim=-1)
    near = (radius - 0.48).abs() < 0.15
    for other, true, error in ((Ball(), 0.5, 2e-3), (Cloud(), 0.45, 0.03), (Shell(None, Context()), 0.5, 0.03)):
        sdf = bumpy(radius=0.2)
        sdf.init_from(other)
        found = sdf.sdf(points).detach()
        assert float((found - radius + true)[near].abs().max()) < error, type(other).__name__
    taken = build(radius=0.2)
    taken.init_from(Cloud())
    shell = radius[:, None].sub(0.45).abs().squeeze(1) < 0.08
    assert float((taken.features(points) - points)[shell].detach().abs().mean()) < 0.1


def test_it_copies_its_like_and_refuses_emptiness() -> None:
    one, two = bumpy(1), build(2)
    two.init_from(one)
    assert torch.equal(one.sdf(cube()), two.sdf(cube()))
    with pytest.raises(UserError, match="nothing to start from"):
        two.init_from(Cloud(0.0))


def test_its_mesh_lies_on_the_zero_level_and_may_be_empty(caplog: pytest.LogCaptureFixture) -> None:
    """Regression: an empty surface that crashes (D14)."""
    mesh = build(radius=0.6).mesh(48)
    torch.testing.assert_close(mesh.vertices.norm(dim=-1), torch.full((len(mesh.vertices),), 0.6), rtol=0, atol=2e-3)
    corners = mesh.vertices[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert float((normal * corners.mean(1)).sum(-1).min()) > 0  # counter-clockwise seen from outside
    empty = build(width=0.02)
    empty.base.fill_(0.3)
    assert empty.mesh(24).faces.shape == (0, 3)
    assert "the surface is empty" in caplog.text
    with torch.no_grad():
        seen = renderer(empty, samples=32)(views(8))
    assert float(seen.opacity.max()) < 0.01
