"""Splatting: closed forms, finite differences, float64, degenerate input, and every backend against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch
from core.kernels.splatting import ALPHA_MAX, rasterize
from core.kernels.splatting.pictures import draw
from core.kernels.splatting.projection import LOW_PASS, project, rotation_matrices
from core.types import Cameras, Splats, SplatStatistics

BACKENDS = [b.name for b in dispatch.backends("splat") if b.runs_on("cpu") and b.available()[0]]


def flat(
    views: int = 2, count: int = 40, height: int = 20, width: int = 27, channels: int = 3, seed: int = 0,
    opacity: float = 0.8, dtype: torch.dtype = torch.float64,
) -> list[Tensor]:  # fmt: skip
    """means, conics, opacities, values, depths of random Gaussians, some of them outside the picture."""
    g = torch.Generator().manual_seed(seed)
    means = (torch.rand(views, count, 2, generator=g, dtype=torch.float64) * 1.4 - 0.2) * torch.tensor([width, height])
    deviations = torch.rand(views, count, 2, generator=g, dtype=torch.float64) * 3 + 0.5
    angle = torch.rand(views, count, generator=g, dtype=torch.float64) * math.pi
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))
    inverse = turn @ torch.diag_embed(deviations**-2) @ turn.mT
    conics = torch.stack([inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 1, 1]], -1)
    opacities = torch.rand(views, count, generator=g, dtype=torch.float64) * opacity
    values = torch.randn(views, count, channels, generator=g, dtype=torch.float64)
    depths = torch.rand(views, count, generator=g, dtype=torch.float64) + 1
    return [x.to(dtype) for x in (means, conics, opacities, values, depths)]


def everything(backend: str, inputs: list[Tensor], height: int, width: int) -> list[Tensor]:
    """Outputs, gradients of a loss in which each of them takes part, and the absolute gradients."""
    means, conics, opacities, values = (x.clone().requires_grad_() for x in inputs[:4])
    absolute = torch.zeros_like(inputs[0])
    out = rasterize(means, conics, opacities, values, inputs[4], height, width, absolute, backend)
    g = torch.Generator().manual_seed(9)
    mix = [torch.randn(x.shape, generator=g, dtype=torch.float64).to(x) for x in out]
    loss = sum((x * m).sum() + (x * x).sum() for x, m in zip(out, mix, strict=True))
    if loss.requires_grad:  # type: ignore[union-attr]
        found = torch.autograd.grad(loss, (means, conics, opacities, values), allow_unused=True)
    grads = [torch.zeros_like(x) if f is None else f for x, f in zip(inputs, found, strict=False)]
    return [*(x.detach() for x in out), *grads, absolute]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_gaussian_has_the_closed_form(backend: str) -> None:
    conic = torch.tensor([0.3, 0.1, 0.2], dtype=torch.float64)
    mean = torch.tensor([6.2, 4.7], dtype=torch.float64)
    out = rasterize(
        mean[None, None], conic[None, None], torch.full((1, 1), 0.7, dtype=torch.float64),
        torch.tensor([[[2.0, -1.0]]], dtype=torch.float64), torch.ones(1, 1), 10, 13, backend=backend,
    )  # fmt: skip
    y, x = torch.meshgrid(torch.arange(10) + 0.5 - 4.7, torch.arange(13) + 0.5 - 6.2, indexing="ij")
    alpha = 0.7 * torch.exp(-0.5 * (0.3 * x.double() ** 2 + 0.2 * x * y + 0.2 * y**2))
    alpha = torch.where(alpha >= 1 / 255, alpha, 0)
    torch.testing.assert_close(out.opacity[0], alpha.double(), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(out.values[0], alpha.double()[..., None] * torch.tensor([2.0, -1.0]).double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_nearer_one_hides_the_farther_one_whatever_their_order(backend: str) -> None:
    means = torch.full((2, 2, 2), 2.5)
    conics = torch.tensor([0.1, 0.0, 0.1]).expand(2, 2, 3)
    values = torch.eye(2).expand(2, 2, 2)
    depths = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    out = rasterize(means, conics, torch.full((2, 2), 0.6), values, depths, 5, 5, backend=backend)
    assert out.values[0, 2, 2].tolist() == pytest.approx([0.6, 0.24])
    assert out.values[1, 2, 2].tolist() == pytest.approx([0.24, 0.6])


@pytest.mark.parametrize("backend", BACKENDS)
def test_opacities_end_at_the_clamp_and_pixels_where_no_light_is_left(backend: str) -> None:
    means, conics = torch.full((1, 5, 2), 1.5), torch.tensor([1e-3, 0.0, 1e-3]).expand(1, 5, 3)
    values, depths = torch.eye(5)[None], torch.arange(1.0, 6.0)[None]
    out = rasterize(means, conics, torch.ones(1, 5), values, depths, 3, 3, backend=backend)
    # 0.01^2 of the light is left behind the second; it would be less than 1e-4 by rounding or by the third.
    seen = out.values[0, 1, 1]
    assert float(seen[0]) == pytest.approx(ALPHA_MAX) and seen[2:].tolist() == [0.0, 0.0, 0.0]
    assert float(out.opacity[0, 1, 1]) < 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_the_finite_differences(backend: str) -> None:
    *inputs, depths = flat(1, 7, 6, 7, 2, opacity=0.9)
    # A Gaussian whose edge (alpha = 1/255) runs through a pixel's centre would jump there: wide ones have none inside.
    inputs[1] = inputs[1] * 0.05

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        return tuple(rasterize(*x, depths, 6, 7, backend=backend))

    assert torch.autograd.gradcheck(run, tuple(x.requires_grad_() for x in inputs), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("views", "count", "height", "width", "channels"),
    [(1, 1, 1, 1, 1), (2, 40, 20, 27, 3), (3, 17, 16, 16, 7), (1, 300, 33, 5, 2), (2, 9, 1, 40, 4), (1, 60, 50, 3, 1)],
)
def test_values_and_gradients_agree_with_the_float64_reference(
    backend: str, views: int, count: int, height: int, width: int, channels: int
) -> None:
    inputs = flat(views, count, height, width, channels, seed=count)
    truth = everything("reference", inputs, height, width)
    for found, true in zip(everything(backend, inputs, height, width), truth, strict=True):
        torch.testing.assert_close(found, true, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_needles_lose_nothing_at_the_sides_of_tiles(backend: str) -> None:
    inputs = flat(1, 24, 70, 41, 1)
    g = torch.Generator().manual_seed(5)
    angle = torch.rand(1, 24, generator=g, dtype=torch.float64) * math.pi
    along, across = 1 / 40**2, 1 / 0.6**2  # deviations of 40 and 0.6 pixels
    c, s = angle.cos(), angle.sin()
    inputs[1] = torch.stack(
        [along * c * c + across * s * s, (along - across) * c * s, along * s * s + across * c * c], -1
    )
    truth = everything("reference", inputs, 70, 41)
    for found, true in zip(everything(backend, inputs, 70, 41), truth, strict=True):
        torch.testing.assert_close(found, true, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_agrees_with_the_float64_reference(backend: str) -> None:
    inputs = flat(2, 200, 40, 50, 3, opacity=0.5)
    truth = everything("reference", inputs, 40, 50)
    for found, true in zip(everything(backend, [x.float() for x in inputs], 40, 50), truth, strict=True):
        apart = (found.double() - true).abs()
        # A pixel on a Gaussian's edge may fall to either side of 1/255, so a few numbers differ by that much.
        assert float(apart.flatten().quantile(0.99) / true.abs().max()) < 1e-5
        assert float(apart.max() / true.abs().max()) < 2e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_fuzzed_shapes_and_wild_numbers_stay_finite(backend: str) -> None:
    g = torch.Generator().manual_seed(4)
    for _ in range(12):
        views, count, height, width, channels = (int(torch.randint(1, high, (), generator=g)) for high in (4, 60, 50, 50, 6))
        inputs = [x.float() for x in flat(views, count, height, width, channels, int(count), 1.0)]
        inputs[0] *= 10 ** float(torch.rand((), generator=g) * 8 - 3)
        inputs[1] *= 10 ** float(torch.rand((), generator=g) * 8 - 6)
        inputs[2][0, 0], inputs[4][0, -1] = 1.5, 0.0
        for value in everything(backend, inputs, height, width):
            assert bool(value.isfinite().all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_be_drawn_is_not_drawn(backend: str) -> None:
    nan, inf = math.nan, math.inf
    one = [torch.full((1, 1, 2), 2.0), torch.tensor([[[1.0, 0.0, 1.0]]]), torch.ones(1, 1), torch.ones(1, 1, 1)]
    for depth in (0.0, -1.0, nan, inf):
        out = rasterize(*one, torch.full((1, 1), depth), 4, 4, backend=backend)
        assert float(out.opacity.abs().max()) == 0
    assert float(rasterize(*one, torch.ones(1, 1), 4, 4, backend=backend).opacity.max()) > 0.5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("views", "count", "channels"), [(2, 0, 3), (0, 4, 3), (1, 4, 0)])
def test_no_gaussians_no_views_and_no_channels(backend: str, views: int, count: int, channels: int) -> None:
    inputs = flat(views, count, 5, 6, channels)
    out = rasterize(*(x.requires_grad_() for x in inputs[:4]), inputs[4], 5, 6, backend=backend)
    assert out.values.shape == (views, 5, 6, channels) and out.opacity.shape == (views, 5, 6)
    assert count > 0 or float(out.opacity.detach().abs().sum()) == 0
    (out.values.sum() + out.opacity.sum()).backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bits_do_not_depend_on_the_run_or_the_number_of_threads(backend: str) -> None:
    before, inputs = torch.get_num_threads(), flat(2, 120, 40, 40, 4, dtype=torch.float32)
    try:
        results = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(everything(backend, inputs, 40, 40))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_shapes_that_do_not_fit_are_named() -> None:
    means, conics, opacities, values, depths = flat()
    with pytest.raises(UserError, match="means must be"):
        rasterize(means, conics, opacities, values[:, :-1], depths, 4, 4)
    with pytest.raises(UserError, match="0 x 4"):
        rasterize(means, conics, opacities, values, depths, 0, 4)
    with pytest.raises(UserError, match="abs_gradient"):
        rasterize(means, conics, opacities, values, depths, 4, 4, abs_gradient=means[:1])


# Projection and pictures: on top of the kernel, the same for every backend.


def cameras(views: int = 2, height: int = 24, width: int = 40, dtype: torch.dtype = torch.float64) -> Cameras:
    azimuth = torch.arange(views, dtype=dtype) * 1.3 + 0.4
    full = torch.ones_like(azimuth)
    made = Cameras.orbit(azimuth, 0.3 * full, 3 * full, 0.7 * full, height, width)
    return Cameras(made.c2w, made.fov_y, height, width, torch.tensor([[width * 0.4, height * 0.7]], dtype=dtype).expand(views, 2))


def cloud(count: int = 30, degree: int = 0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Splats:
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
    return Splats(
        rand(count, 3) - 0.5, rand(count, 3) * 0.2 + 0.02, torch.nn.functional.normalize(rand(count, 4) - 0.5, dim=-1),
        rand(count) * 0.6 + 0.1, rand(count, (degree + 1) ** 2, 3) * 0.4,
    )  # fmt: skip


def test_the_projected_covariance_is_that_of_the_linearised_camera() -> None:
    """J S J^T + 0.3 I with J by finite differences of ``Cameras.project``."""
    splats, views = cloud(12), cameras()
    found = project(splats, views)
    pixels, depths = views.project(splats.means)
    torch.testing.assert_close(found.means, pixels)
    torch.testing.assert_close(found.depths, depths)
    h = 1e-5
    columns = [
        (views.project(splats.means + h * e)[0] - views.project(splats.means - h * e)[0]) / (2 * h)
        for e in torch.eye(3, dtype=torch.float64)
    ]
    jacobian = torch.stack(columns, -1)
    axes = rotation_matrices(splats.rotations) * splats.scales[:, None]
    wanted = jacobian @ axes @ axes.mT @ jacobian.mT + LOW_PASS * torch.eye(2, dtype=torch.float64)
    inverse = torch.linalg.inv(wanted)
    conics = torch.stack([inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 1, 1]], -1)
    torch.testing.assert_close(found.conics, conics, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.radii, 3 * torch.linalg.eigvalsh(wanted)[..., 1].sqrt())


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_reach_every_parameter_of_a_set(backend: str) -> None:
    """Directional finite differences through projection, harmonics and blending."""
    splats, views = cloud(25, degree=2), cameras(2, 12, 15)
    names = ("means", "scales", "rotations", "opacities", "sh")
    values = [getattr(splats, n).requires_grad_() for n in names]

    def loss(*x: Tensor) -> Tensor:
        out = draw(Splats(*x), views, backend)
        return sum((o * torch.linspace(-1, 1, o.numel(), dtype=o.dtype).view(o.shape)).sum() for o in out[:4])

    grads = torch.autograd.grad(loss(*values), values)
    g = torch.Generator().manual_seed(1)
    for k, name in enumerate(names):
        direction = torch.randn(values[k].shape, generator=g, dtype=torch.float64)
        h = 1e-7  # small: alpha jumps at 1/255
        ends = [loss(*(v + s * h * direction if j == k else v for j, v in enumerate(values))) for s in (1, -1)]
        slope = float((ends[0] - ends[1]).detach() / (2 * h))
        assert slope == pytest.approx(float((grads[k] * direction).sum()), rel=1e-4, abs=1e-6), name


def test_an_opaque_wall_has_its_depth_and_normal_and_any_picture_shape() -> None:
    """A large flat Gaussian across the viewing axis; the principal point is off the centre, the picture is not square."""
    views = cameras(1, 10, 30)
    forward = -views.c2w[0, :3, 2]
    centre = views.position[0] + 2 * forward
    frame = views.c2w[0, :3, :3]
    trace = 1 + frame.trace()  # the camera's own axes as a quaternion
    w = trace.sqrt() / 2
    turn = torch.stack([w, *((frame[i, j] - frame[j, i]) / (4 * w) for i, j in ((2, 1), (0, 2), (1, 0)))])
    torch.testing.assert_close(rotation_matrices(turn), frame)
    wall = Splats(
        centre.repeat(3, 1), torch.tensor([[5.0, 5.0, 1e-3]], dtype=torch.float64).repeat(3, 1), turn.repeat(3, 1),
        torch.full((3,), 0.95, dtype=torch.float64), torch.ones(3, 1, 3, dtype=torch.float64),
    )  # fmt: skip
    out = draw(wall, views)
    row, column = int(views.center[0, 1]), int(views.center[0, 0])
    assert out.opacity.shape == (1, 10, 30, 1) and float(out.opacity.min()) > 0.9
    assert float(out.depth[0, row, column] / out.opacity[0, row, column]) == pytest.approx(2.0, abs=1e-6)
    normal = out.normal[0, row, column] / out.opacity[0, row, column]
    torch.testing.assert_close(normal, -forward)


@pytest.mark.parametrize("backend", BACKENDS)
def test_behind_the_camera_zero_scale_and_zero_quaternions_are_harmless(backend: str) -> None:
    views = cameras(2, 9, 12, torch.float32)
    splats = cloud(8, dtype=torch.float32)
    splats.means[0] = views.position[0] + 0.5 * views.c2w[0, :3, 2]  # behind the first
    splats.means[1] = views.position[0]
    splats.scales[2], splats.scales[3] = 0.0, 1e6
    splats.rotations[4] = 0.0
    splats.opacities[5] = 0.0
    values = [x.requires_grad_() for x in (splats.means, splats.scales, splats.rotations, splats.opacities, splats.sh)]
    out = draw(Splats(*values), views, backend)
    assert not bool(out.visible[0, :2].any()) and not bool(out.visible[:, 5].any()) and bool(out.visible[:, 2].any())
    grads = torch.autograd.grad(sum(o.sum() for o in out[:4]), values)
    assert all(bool(x.isfinite().all()) for x in (*out[:5], *grads))


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_are_the_absolute_gradients_of_the_pictures(backend: str) -> None:
    splats, views = cloud(20), cameras(2, 7, 9)
    zeros = lambda: torch.zeros(20, dtype=torch.float64)  # noqa: E731
    for times in (1, 2):
        splats.statistics = SplatStatistics(zeros(), zeros(), zeros())
        splats.means.requires_grad_()
        for _ in range(times):
            out = draw(splats, views, backend)
            out.rgb.square().sum().backward()
        flat = project(splats, views)
        # Over one pixel the absolute gradient is the gradient's size: added over pixels, one at a time.
        size = torch.zeros_like(flat.means)
        for b, y, x in [(b, y, x) for b in range(2) for y in range(7) for x in range(9)]:
            whole = draw_means(splats, views, flat.means.detach(), backend)
            size += torch.autograd.grad(whole[0][b, y, x].square().sum(), whole[1])[0].abs()
        wanted = (size * (2 * 7 / 2)).norm(dim=-1).sum(0) * times
        torch.testing.assert_close(splats.statistics.gradient, wanted, rtol=1e-6, atol=1e-9)
        assert splats.statistics.count.tolist() == (out.visible.sum(0) * times).tolist()
        torch.testing.assert_close(splats.statistics.radius, (flat.radii * out.visible).amax(0).detach() / 7)
        if backend == "reference":
            break  # slow, and nothing new


def draw_means(splats: Splats, views: Cameras, means: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """The colours as a function of the 2D means alone."""
    from core.spherical_harmonics import sh_colors

    found = project(splats, views)
    leaf = means.clone().requires_grad_()
    colors = sh_colors(splats.sh, torch.zeros(len(views), len(splats), 3, dtype=torch.float64)).detach()
    out = rasterize(
        leaf, found.conics.detach(), splats.opacities.expand(len(views), -1), colors, found.depths.detach(),
        views.height, views.width, backend=backend,
    )  # fmt: skip
    return out.values, leaf


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["gsplat", "reference"])
def test_cuda_backends_agree_with_float64(backend: str) -> None:
    available, why = {b.name: b for b in dispatch.backends("splat")}[backend].available()
    if not available:
        pytest.skip(why)
    inputs = flat(2, 200, 40, 50, 7, opacity=0.5)
    truth = everything("reference", inputs, 40, 50)
    for found, true in zip(everything(backend, [x.float().cuda() for x in inputs], 40, 50), truth, strict=True):
        apart = (found.cpu().double() - true).abs()
        assert float(apart.flatten().quantile(0.99) / true.abs().max()) < 1e-4
        assert float(apart.max() / true.abs().max()) < 2e-2
