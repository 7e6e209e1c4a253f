"""Rows of numbers and ellipsoids, a network that knows no order, sampling against closed forms, gradients of views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from core.contracts import Context, DataSource, Step
from core.diffusion.process import DiffusionProcess
from core.errors import UserError
from core.kernels.splatting.pictures import draw
from core.kernels.splatting.projection import rotation_matrices
from core.types import Splats
from plugins.gsd import fitting
from plugins.gsd.fitting import FitConfig, around, fitted, fitted_sets, mismatch
from plugins.gsd.guidance import Given, ViewConfig, led, walk
from plugins.gsd.network import DitConfig, SetDit
from plugins.gsd.tokens import axes_of, canonical, on_surface, quaternions, splats_of, tokens_of

AROUND = around(3, 16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball(count: int = 24, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Points, normals, colours [B, N, 3] of a ball of radius 0.6 whose colour says where it is."""
    normals = torch.nn.functional.normalize(torch.randn(batch, count, 3, generator=seeded(1)), dim=-1)
    return 0.6 * normals, normals, normals / 2 + 0.5


def covariances(splats: Splats) -> Tensor:
    axes = rotation_matrices(splats.rotations) * splats.scales[:, None]
    return axes @ axes.transpose(1, 2)


def rows(count: int = 12) -> Tensor:
    x = torch.randn(count, 16, generator=seeded(3))
    x[:, 3:6] = 0.5 * x[:, 3:6] - 2.5
    x[:, 12:15] = x[:, 12:15].sigmoid()
    return x


def test_quaternions_are_those_of_the_axes_half_turns_too() -> None:
    turn = axes_of(torch.randn(200, 6, generator=seeded(), dtype=torch.float64))
    half = torch.diag_embed(torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64))
    for given in (turn, half):
        torch.testing.assert_close(rotation_matrices(quaternions(given)), given)
    pair = torch.randn(6, 6, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: quaternions(axes_of(x)), pair)


def test_equal_ellipsoids_are_equal_rows() -> None:
    given = rows()
    whole, turn = canonical(given), axes_of(given[:, 6:12])
    torch.testing.assert_close(covariances(splats_of(whole)), covariances(splats_of(given)), atol=1e-5, rtol=1e-4)
    order = [2, 0, 1]  # another way to write the same axes, two of them turned round: still right-handed
    axes = turn[:, :, order] * torch.tensor([-1.0, 1.0, -1.0])
    other = torch.cat([given[:, :3], given[:, 3:6][:, order], axes[..., 0], axes[..., 2], given[:, 12:]], 1)
    torch.testing.assert_close(canonical(other), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens_of(splats_of(whole)), whole, atol=1e-4, rtol=1e-4)
    assert bool((whole[:, 3:5] >= whole[:, 4:6]).all()) and bool(((whole[:, 9:12] * whole[:, :3]).sum(1) >= 0).all())


def test_gaussians_lie_flat_on_the_surface_in_its_colours() -> None:
    points, normals, colors = ball(400)
    (made,) = on_surface(points, normals, colors, 40)
    torch.testing.assert_close(made[:, :3].norm(dim=1), torch.full((40,), 0.6))
    torch.testing.assert_close(made[:, 9:12], made[:, :3] / 0.6, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close((made[:, 5] - made[:, 3]).exp(), torch.full((40,), 0.3))
    assert float((made[:, 12:15] - (made[:, :3] / 1.2 + 0.5)).abs().max()) < 0.2
    with pytest.raises(UserError, match="40 points cannot be chosen of 24"):
        on_surface(*ball(24), 40)


@torch.no_grad()
def test_the_order_of_the_set_changes_neither_picture_nor_answer() -> None:
    x, order = rows(), torch.randperm(12, generator=seeded())
    seen, turned = draw(splats_of(x), AROUND), draw(splats_of(x[order]), AROUND)
    torch.testing.assert_close(seen.rgb, turned.rgb, atol=1e-5, rtol=1e-4)
    torch.manual_seed(0)
    network = SetDit(DitConfig(width=16, depth=2, heads=2), 3)
    noisy, t, label = x[None].repeat(2, 1, 1), torch.tensor([10, 700]), torch.tensor([1, 1])
    assert not network(noisy, t, label).any(), "adaLN-Zero starts with nothing to say"
    for p in network.parameters():
        p.copy_(torch.randn(p.shape, generator=seeded(p.numel())) * 0.3)
    answer = network(noisy, t, label)
    torch.testing.assert_close(network(noisy[:, order], t, label), answer[:, order], atol=1e-4, rtol=1e-3)
    assert float((answer[0] - answer[1]).abs().max()) > 0.1, "the time is heard"
    assert float((network(noisy, t, network.untold(2)) - answer).abs().max()) > 0.1, "the class is heard"
    changed = noisy.clone()
    changed[:, 0] += 1
    assert float((network(changed, t, label) - answer)[:, 1:].abs().max()) > 1e-3, "tokens see each other"


def cosine() -> DiffusionProcess:
    return DiffusionProcess.from_scheduler(DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2"))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_both_samplers_reach_a_normal_distribution_whose_denoiser_is_known(eta: float) -> None:
    process, mean, spread = cosine(), 0.7, 0.4

    def estimate(x: Tensor, t: Tensor) -> Tensor:
        a, s = process.scales(t, x)
        return mean + a * spread**2 / (a**2 * spread**2 + s**2) * (x - a * mean)

    times = [t.clamp(min=1).expand(4) for t in process.times(150)]
    start = torch.randn(4, 2500, 1, generator=seeded(), dtype=torch.float64)
    made = walk(process, estimate, start, times, eta, seeded(1))
    assert float(made.mean()) == pytest.approx(mean, abs=0.02)
    assert float(made.std()) == pytest.approx(spread, rel=0.04)


def target() -> tuple[Tensor, Given]:
    (made,) = on_surface(*ball(60), 24)
    with torch.no_grad():
        seen = draw(splats_of(made), AROUND)
    return made, Given(AROUND, seen.rgb + (1 - seen.opacity) * 0.5, seen.opacity)


def test_views_lead_against_the_gradient_through_the_denoiser() -> None:
    made, given = target()
    process, t = cosine(), torch.tensor([400])
    share = torch.linspace(0.2, 1.4, 16)  # a denoiser that is a product, so that its gradient is known
    x = (made + 0.1 * torch.randn(made.shape, generator=seeded(5)))[None]
    far, found = float(mismatch(x[0] * share, *vars(given).values())), []
    for through in ("noisy", "estimate"):
        config = ViewConfig(scale=2.0, through=through)  # type: ignore[arg-type]
        losses: list[float] = []
        moved = led(lambda x, t: x * share, lambda x: x, process, given, config, losses)(x, t)
        x0 = (x * share)[0].clone().requires_grad_()
        (g,) = torch.autograd.grad(mismatch(x0, given.cameras, given.rgb, given.mask), x0)
        g = g * share if through == "noisy" else g
        step = 0.2 * process.scales(t, x)[1] * g / g.square().mean().sqrt()
        torch.testing.assert_close(moved, (x * share - step).clamp(-3.5, 3.5), atol=1e-4, rtol=1e-3)
        assert losses == [pytest.approx(far, rel=1e-4)]
        found.append(moved)
    assert float((found[0] - found[1]).abs().max()) > 1e-3


def test_leading_brings_samples_to_the_view_and_no_leading_leaves_them() -> None:
    made, given = target()
    process = cosine()

    def estimate(x: Tensor, t: Tensor) -> Tensor:
        a, s = process.scales(t, x)
        return made + a * 0.01 / (a**2 * 0.01 + s**2) * (x - a * made)  # sets round the true one

    start = torch.randn(2, *made.shape, generator=seeded(7))
    times = [t.clamp(min=1).expand(2) for t in process.times(20)]
    errors = []
    for config in (ViewConfig(scale=0), ViewConfig(scale=0.5), ViewConfig(scale=0.5, inner=3)):
        guided = led(estimate, lambda x: x, process, given, config)
        assert (guided is estimate) == (config.scale == 0)
        sets = walk(process, guided, start, times, 0.0, seeded())
        errors.append(sum(float(mismatch(one, given.cameras, given.rgb, given.mask)) for one in sets))
    assert errors[1] < 0.8 * errors[0] and errors[2] < errors[0]


def test_fitting_follows_the_pictures_from_unseen_sides_too() -> None:
    made, given = target()
    other = around(3, 16, 0.5)
    with torch.no_grad():
        seen = draw(splats_of(made), other)
    away = made.clone()
    away[:, 12:15], away[:, 3:6] = 0.5, away[:, 3:6] - 0.5
    error = [mismatch(away, other, seen.rgb + (1 - seen.opacity) * 0.5, seen.opacity)]
    done = fitted(away, given.cameras, given.rgb, given.mask, 25, 0.05)
    error.append(mismatch(done, other, seen.rgb + (1 - seen.opacity) * 0.5, seen.opacity))
    assert float(error[1]) < 0.35 * float(error[0])
    assert not torch.equal(fitted(away, given.cameras, given.rgb, None, 1, 0.05), away)


class Balls(DataSource):
    """Balls without pictures."""

    class Config(fitting.BaseConfig):
        objects: int = 40
        kept: int = 64
        points: int = 32

    def batch(self, step: Step) -> dict[str, Any]:
        return self.take(torch.arange(2), step.generator("data"))

    def take(self, index: Tensor, random: torch.Generator) -> dict[str, Any]:
        points, normals, colors = ball(self.options.points, len(index))
        size = (1 + 0.01 * index)[:, None, None]
        return {"points": points * size, "normals": normals, "colors": colors, "label": index % 2}


def test_fitted_objects_are_kept_and_an_interrupted_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path))
    data, fit = Balls(Balls.Config(), Context()), FitConfig(count=16, steps=0)
    tokens, labels = fitted_sets(data, fit)
    assert tokens.shape == (40, 16, 16) and labels.tolist() == [k % 2 for k in range(40)]
    first, second = sorted(tmp_path.rglob("*.npz"))
    second.unlink()
    np.savez(first, tokens=np.zeros((32, 16, 16), np.float32), label=labels[:32].numpy())
    again, _ = fitted_sets(data, fit)
    assert not again[:32].any() and torch.equal(again[32:], tokens[32:]), "only what was missing is made again"
    with pytest.raises(UserError, match=r"data.kept=64 is too little: 128 Gaussians"):
        fitted_sets(data, FitConfig(steps=0))
    with pytest.raises(UserError, match=r"fit.steps=30: Balls gives no pictures to fit to; set fit.steps=0"):
        fitted_sets(data, FitConfig(count=16))
