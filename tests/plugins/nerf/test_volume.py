"""The volume renderer against closed forms: balls, a Gaussian cloud, and what is behind them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts import Background, Context, Geometry, Material, Step
from core.testing import check_component
from core.types import Cameras, Render
from plugins.nerf.volume import Volume


class Field(Geometry):
    """A density given as a function of the radius; its features are the position. Counts the points it is asked for."""

    def __init__(self, profile: Any) -> None:
        super().__init__(None, Context())
        self.profile = profile
        self.asked = 0

    def field(self, points: Tensor) -> dict[str, Tensor]:
        self.asked += len(points)
        return {"density": self.profile(points.norm(dim=-1)), "features": points}


class Red(Material):
    """One colour."""

    def forward(
        self, features: Tensor, points: Tensor, directions: Tensor, normals: Tensor | None, light: Tensor | None = None
    ) -> Tensor:
        return torch.tensor([0.9, 0.2, 0.1]).expand(len(features), 3)


class Position(Red):
    """Colour is where the sample is; smooth, so that skipping what is hidden can be seen."""

    def forward(self, features: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return (features * 0.5 + 0.5).clamp(0, 1)


class Sky(Background):
    """Colour is the direction."""

    def forward(self, directions: Tensor) -> Tensor:
        return directions * 0.5 + 0.5


def ball(sigma: float, radius: float = 0.6) -> Field:
    return Field(lambda r: sigma * (r < radius) + 0 * r)


def cloud(sigma: float, width: float = 0.2) -> Field:
    return Field(lambda r: sigma * torch.exp(-0.5 * (r / width) ** 2))


def soft_ball(sigma: float = 400.0, radius: float = 0.6, edge: float = 0.01) -> Field:
    return Field(lambda r: sigma * torch.sigmoid((radius - r) / edge))


def renderer(geometry: Geometry, material: Material | None = None, **options: Any) -> Volume:
    context = Context()
    context.parts |= {
        "geometry": geometry,
        "material": material or Red(None, context),
        "background": Sky(None, context),
    }
    return Volume(Volume.Config(**{"samples": 256} | options), context)


def views(size: int = 16, fov: float = 0.7) -> Cameras:
    a, e = torch.tensor([0.4, 2.5]), torch.tensor([0.3, -0.8])
    return Cameras.orbit(a, e, torch.full((2,), 3.0), torch.full((2,), fov), size, size)


def geometry_of(cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pixel's ray: distance of the point nearest to the origin, how near it comes, cosine to the axis."""
    origins, directions = (x.double() for x in cameras.rays())
    middle = -(origins * directions).sum(-1, keepdim=True)
    impact = (origins + middle * directions).norm(dim=-1, keepdim=True)
    cosine = -(directions * cameras.c2w[:, None, None, :3, 2]).sum(-1, keepdim=True)
    return middle, impact, cosine


@torch.no_grad()
def picture(renderer: Volume, cameras: Cameras) -> Render:
    return renderer(cameras)


def test_it_keeps_its_contract() -> None:
    assert len(check_component("renderer", "volume", options={"samples": 96, "grid": 16})) >= 20


@pytest.mark.parametrize("sigma", [0.3, 2.0, 8.0])
def test_opacity_of_a_ball_is_one_minus_exp_of_its_chord(sigma: float) -> None:
    seen = picture(renderer(ball(sigma)), views(24))
    _, impact, _ = geometry_of(views(24))
    chord = 2 * (0.36 - impact.square()).clamp(min=0).sqrt()
    # Each end of the chord is met within half a step of 2/256: an error of the optical depth below sigma steps.
    error = (seen.opacity - (1 - torch.exp(-sigma * chord))).abs()
    assert float(error.max()) < sigma * 2 / 256
    assert float(error.mean()) < 0.25 * sigma * 2 / 256
    assert float(seen.opacity[impact > 0.61].abs().max()) == 0.0


@pytest.mark.parametrize("sigma", [0.5, 5.0])
def test_a_gaussian_cloud_is_integrated_to_many_digits(sigma: float) -> None:
    """Along a ray at distance b from the centre the optical depth is sigma w sqrt(2 pi) exp(-b^2 / 2 w^2)."""
    cameras = views(fov=0.5)  # the cube's sides, 5 widths away, are out of sight
    seen = picture(renderer(cloud(sigma), samples=128), cameras)
    middle, impact, cosine = geometry_of(cameras)
    depth = sigma * 0.2 * math.sqrt(2 * math.pi) * torch.exp(-impact.square() / 0.08)
    torch.testing.assert_close(seen.opacity.double(), 1 - torch.exp(-depth), rtol=1e-4, atol=1e-5)
    assert seen.depth is not None
    if sigma == 0.5:  # mean of 1 - exp(-tau) around the nearest point: at most sigma-ish nearer than it
        nearer = middle * cosine - seen.depth.double()
        covered = seen.opacity > 0.06
        assert float(nearer[covered].min()) > -1e-4 and float(nearer[covered].max()) < 0.05


def test_thin_fog_has_its_depth_in_the_middle_and_the_variance_of_its_profile() -> None:
    sigma, cameras = 1e-3, views(fov=0.2)
    seen = picture(renderer(cloud(sigma), samples=128), cameras)
    middle, impact, _ = geometry_of(cameras)
    variance = seen.extras["depth_variance"].view(impact.shape) / seen.opacity
    torch.testing.assert_close(variance, torch.full_like(variance, 0.04), rtol=0.02, atol=0.0)
    assert bool((seen.depth == 0).all())  # too thin to have a depth


@pytest.mark.parametrize("fov", [0.5, 1.2])
def test_depth_of_an_opaque_ball_is_where_the_ray_enters_along_the_axis(fov: float) -> None:
    cameras = views(24, fov)
    seen = picture(renderer(ball(1e4)), cameras)
    middle, impact, cosine = geometry_of(cameras)
    hit = impact < 0.6
    wanted = (middle - (0.36 - impact.square()).clamp(min=0).sqrt()) * cosine
    assert seen.depth is not None and bool(hit.any()) and not bool(hit.all())
    inner = impact < 0.58  # nearer to the outline a step may pass the ball by
    # The first sample inside is at most a step behind the surface, its middle half a step from there.
    assert float((seen.depth - wanted)[inner].abs().max()) < 1.01 * 2 / 256
    assert torch.equal(seen.depth[~hit], torch.zeros_like(seen.depth[~hit]))
    assert torch.equal(seen.opacity[~hit], torch.zeros_like(seen.opacity[~hit]))


class Lit(Red):
    """Asks for a normal at every sample, so that pictures take it from the density's gradient."""

    needs_normal = True


@pytest.mark.parametrize("material", [Red, Lit])
def test_normals_of_a_ball_are_radial_and_face_the_camera(material: Any) -> None:
    cameras = views(24)
    seen = picture(renderer(soft_ball(), material(None, Context())), cameras)
    _, impact, cosine = geometry_of(cameras)
    origins, directions = cameras.rays()
    inner = (impact < 0.55)[..., 0]
    assert seen.normal is not None and seen.depth is not None
    place = (origins + directions * (seen.depth / cosine).float())[inner]  # where the ray ends, in the mean
    normal, length = seen.normal[inner], seen.normal[inner].norm(dim=-1)
    assert float(length.min()) > 0.99 and float(length.max()) < 1 + 1e-5
    aligned = (normal * place).sum(-1) / length / place.norm(dim=-1)
    assert float(aligned.min()) > 1 - 1e-3
    assert float((normal * directions[inner]).sum(-1).max()) < 0
    outside = (impact > 0.75)[..., 0]
    assert float(seen.normal[outside].norm(dim=-1).max()) < 1e-3


def test_what_is_behind_shines_through() -> None:
    cameras = views(24)
    seen = picture(renderer(ball(1.0)), cameras)
    _, directions = cameras.rays()
    wanted = seen.opacity * torch.tensor([0.9, 0.2, 0.1]) + (1 - seen.opacity) * (directions * 0.5 + 0.5)
    torch.testing.assert_close(seen.rgb, wanted, rtol=1e-5, atol=1e-5)
    nothing = picture(renderer(ball(0.0)), cameras)
    torch.testing.assert_close(nothing.rgb, directions * 0.5 + 0.5)
    assert nothing.normal is not None and not bool(nothing.normal.any())


def test_colour_is_weighted_where_the_light_comes_from() -> None:
    """For opaque matter the colour is that of the surface: here, the position where the ray enters."""
    cameras = views(24)
    seen = picture(renderer(ball(1e4), Position(None, Context())), cameras)
    middle, impact, _ = geometry_of(cameras)
    origins, directions = cameras.rays()
    entry = origins + directions * (middle - (0.36 - impact.square()).clamp(min=0).sqrt()).float()
    inner = (impact < 0.58)[..., 0]
    assert float((seen.rgb * 2 - 1 - entry)[inner].abs().max()) < 2 * 2 / 256


def settled(geometry: Field, **options: Any) -> Volume:
    """A renderer whose occupancy grid has seen the scene, after the warm-up."""
    made = renderer(geometry, Position(None, Context()), warmup=2, update_every=1, **options)
    for index in range(12):
        made.update(Step(index, 100))
    geometry.asked = 0
    return made


@pytest.mark.parametrize(
    ("sigma", "edge"),
    [(50.0, 0.01), (100.0, 0.03), (400.0, 0.03), (400.0, 0.01)],
)
def test_skipping_what_is_hidden_hardly_changes_the_picture(sigma: float, edge: float) -> None:
    """An opaque ball with the default steps and cells (of side 0.042), rendered with and without."""
    pictures, asked = [], []
    for hidden in (0.0, Volume.Config().hidden):
        scene = soft_ball(sigma, edge=edge)
        made = settled(scene, hidden=hidden, samples=Volume.Config().samples)
        pictures.append(picture(made, views(32)))
        asked.append(scene.asked)
    whole, skipped = pictures
    assert asked[1] < 0.8 * asked[0]
    assert float((whole.rgb - skipped.rgb).abs().max()) < 1e-2
    assert float((whole.opacity - skipped.opacity).abs().max()) < 1e-2


def test_the_occupancy_grid_leaves_out_empty_space_and_nothing_else() -> None:
    default = Volume.Config()
    full = renderer(soft_ball(50.0), Position(None, Context()), hidden=0.0, samples=default.samples)
    sparse = settled(soft_ball(50.0), hidden=0.0, samples=default.samples)
    a, b = picture(full, views(24)), picture(sparse, views(24))
    _, impact, _ = geometry_of(views(24))
    lost, inner = a.opacity - b.opacity, impact < 0.5
    assert float(lost.min()) > -1e-6
    assert float(lost[inner].max()) < 1e-3
    # At the outline: fog of which a step has an opacity below the threshold, along some eight steps.
    assert float(lost.max()) < 1 - (1 - default.threshold) ** 8
    counts = [r.context.parts["geometry"].asked for r in (full, sparse)]
    assert counts[1] < 0.25 * counts[0]


def test_nothing_is_random_without_a_step() -> None:
    made = settled(soft_ball())
    torch.manual_seed(0)
    first = picture(made, views())
    torch.manual_seed(1)
    second = picture(made, views())
    for name in ("rgb", "opacity", "depth", "normal"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def test_a_step_decides_the_jitter() -> None:
    made = renderer(cloud(2.0), samples=8)
    with torch.no_grad():
        first, again, other = (made(views(), Step(k, 10, seed=1)).opacity for k in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_jitter_averages_to_the_integral() -> None:
    """With 16 coarse steps each jittered render is off; the mean of many is not."""
    made, cameras = renderer(ball(0.5), samples=16), views(4, 0.3)
    with torch.no_grad():
        mean = torch.stack([made(cameras, Step(k, 100)).opacity for k in range(100)]).mean(0)
    _, impact, _ = geometry_of(cameras)
    wanted = 1 - torch.exp(-0.5 * 2 * (0.36 - impact.square()).clamp(min=0).sqrt())
    # Curvature of exp: half the variance of the depth, at most (0.5 * 2/16)^2 / 6, plus the noise of 100 draws.
    assert float((mean - wanted).abs().max()) < 0.0625**2 / 6 + 4 * 0.0625 / 100**0.5


def test_pieces_of_a_picture_are_the_picture() -> None:
    whole, pieces = (picture(renderer(soft_ball(), rays=n), views(24)) for n in (16384, 256))
    for name in ("rgb", "opacity", "depth", "normal"):
        torch.testing.assert_close(getattr(whole, name), getattr(pieces, name))
    torch.testing.assert_close(whole.extras["weights"], pieces.extras["weights"])


def test_normals_while_training_are_given_where_asked_for() -> None:
    assert renderer(cloud(2.0), samples=8)(views(8), Step(0, 1)).normal is None
    assert renderer(cloud(2.0), samples=8, normals=True)(views(8), Step(0, 1)).normal is not None


def test_a_ball_s_normals_while_training_face_the_camera_where_they_count() -> None:
    made = renderer(soft_ball(), normals=True)
    extras = made(views(12, 0.2), Step(0, 1)).extras  # no ray near the outline, where both sides are seen
    weights, facing = extras["weights"].detach(), extras["facing"].detach()
    assert float((weights * facing.clamp(min=0)).sum() / weights.sum()) < 1e-3
    assert float((weights * facing).sum() / weights.sum()) < -0.5


def test_gradients_reach_the_geometry_through_colour_depth_and_normals() -> None:
    from plugins.nerf.hash_grid import HashGrid

    options = HashGrid.Config(levels=3, log2_table=9, finest=16, hidden=8)
    for target in ("rgb", "opacity", "depth", "normal"):
        grid = HashGrid(options, Context())
        made = renderer(grid, Position(None, Context()), samples=24, normals=target == "normal")
        value = getattr(made(views(6), Step(0, 1)), target)
        (value * torch.linspace(0, 1, value.shape[2])[:, None]).sum().backward()
        assert grid.table.grad is not None and bool(torch.isfinite(grid.table.grad).all()), target
        assert bool((grid.table.grad != 0).any()), target


def test_the_gradient_of_opacity_in_the_density_is_the_transmittance_left() -> None:
    """For a cloud sigma g: d opacity / d sigma = (1 - opacity) integral of g."""
    sigma = torch.tensor(2.0, requires_grad=True)
    made = renderer(Field(lambda r: sigma * torch.exp(-0.5 * (r / 0.2) ** 2)), samples=128)
    cameras = views(4, 0.3)
    opacity = made(cameras, Step(0, 1)).opacity
    (gradient,) = torch.autograd.grad(opacity.sum(), sigma)
    _, impact, _ = geometry_of(cameras)
    length = 0.2 * math.sqrt(2 * math.pi) * torch.exp(-impact.square() / 0.08)
    assert float(gradient) == pytest.approx(float((length * torch.exp(-2.0 * length)).sum()), rel=1e-3)


def test_it_owns_no_parameter_and_its_grid_is_part_of_the_checkpoint() -> None:
    made = renderer(cloud(1.0))
    assert made.param_groups() == [] and not list(made.parameters())
    assert "grid.density" in made.state_dict() and not any("geometry" in k for k in made.state_dict())


def test_views_are_poses_until_they_are_rendered() -> None:
    """Regression: rays of a whole turn computed ahead, gigabytes at 1024 pixels (D13)."""
    around = Cameras.orbit(torch.zeros(120), torch.zeros(120), torch.ones(120), torch.ones(120), 1024, 1024)
    held = [v for v in vars(around).values() if isinstance(v, Tensor)]
    assert sum(v.numel() * v.element_size() for v in held) < 1 << 14


def test_an_empty_scene_is_seen_and_has_an_empty_mesh(caplog: pytest.LogCaptureFixture) -> None:
    """Regression: an empty surface that crashes (D14)."""
    nothing = settled(ball(0.0))
    seen = nothing(views(8), Step(0, 1))
    assert float(seen.opacity.max()) == 0.0 and bool(torch.isfinite(seen.rgb).all())
    assert nothing._part("geometry").mesh(16).faces.shape == (0, 3)
    assert "the surface is empty" in caplog.text


class Sided(Field):
    """Knows its own normals, and a density that depends on the ray."""

    def normals(self, points: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0]).expand(len(points), 3)

    def along(self, points: Tensor, directions: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return {"density": 20.0 * (directions[:, 0] < 0) * (points.norm(dim=-1) < 0.5), "features": points}


@pytest.mark.parametrize("normals", [False, True])
def test_a_geometry_s_own_normals_and_rays_count(normals: bool) -> None:
    a, far = torch.tensor([0.0, math.pi]), torch.full((2,), 3.0)
    cameras = Cameras.orbit(a, torch.zeros(2), far, torch.full((2,), 0.1), 4, 4)  # from the front and from behind
    seen = renderer(Sided(lambda r: r), normals=normals)(cameras, Step(0, 1) if normals else None)
    assert float(seen.opacity[0].min()) > 0.99 and float(seen.opacity[1].max()) == 0.0
    assert seen.normal is not None
    torch.testing.assert_close(seen.normal[0], seen.opacity[0] * torch.tensor([0.0, 0.0, 1.0]))


class Learned(Field):
    """A ball whose density is learned."""

    def __init__(self) -> None:
        super().__init__(lambda r: self.level * torch.sigmoid((0.6 - r) / 0.05))
        self.level = torch.nn.Parameter(torch.tensor(3.0))


@pytest.mark.parametrize("normals", [False, True])
def test_pieces_of_a_training_picture_are_the_picture_and_its_gradient(normals: bool) -> None:
    """Rendered in pieces of 20 rays, of which nothing is kept: the same values, the same gradient."""
    found = {}
    for rays in (0, 20):
        field = Learned()
        render = renderer(field, samples=32, normals=normals, training_rays=rays)
        seen = render(views(5), Step(3, 10))
        total = seen.rgb.square().sum() + seen.opacity.sum() + seen.extras["weights"].square().sum()
        total = total + (seen.normal[..., 0].sum() if normals else 0)
        total.backward()
        found[rays] = [seen.rgb.detach(), seen.depth.detach(), seen.extras["weights"].detach(), field.level.grad]
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_memory_is_saved_by_fewer_rays_down_to_256() -> None:
    render = renderer(Learned(), samples=16)
    assert render.lighten() is None  # nothing was rendered so far
    render(views(23), Step(0, 10))  # 1058 rays
    assert render.lighten() == "529 rays at once (renderer.training_rays)" and render.most == 529
    assert render.lighten() is not None and render.lighten() is None and render.most == 264
