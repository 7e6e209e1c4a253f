"""The way through time, where the best denoiser is known: latents distributed as a Gaussian."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_lion import latents, random, seeded
from torch import Tensor

from core.diffusion.sde import VPSDE
from plugins.lion.options import SamplingConfig
from plugins.lion.sampling import Latents, Walk, between, told_model

SDE = VPSDE()
STD = 0.4


def gaussian(mean: float) -> Any:
    """The best prediction of the noise where latents are N(mean, STD^2), moved by a condition's sum."""

    def model(x: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
        a, s = SDE.scales(t, x)
        at = torch.full_like(x, mean)
        if told and told[-1] is not None:
            at = at + told[-1].sum(1).view(-1, *[1] * (x.dim() - 1))
        return s * (x - a * at) / (a.square() * STD**2 + s.square())

    return model


def walk(**options: Any) -> Walk:
    return Walk({"shape": gaussian(1.0), "points": gaussian(-2.0)}, SDE, SamplingConfig(**options))


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "ode"])
def test_samples_are_those_of_the_priors(sampler: str) -> None:
    one = walk(sampler=sampler, steps=100, clip=5.0)
    noise = one.noise(64, (5, 40, 4), seeded(), torch.device("cpu"))
    made = one.down(noise, None, seeded(1))
    for found, mean in ((made.z, 1.0), (made.h, -2.0)):
        assert float(found.mean()) == pytest.approx(mean, abs=0.08)
        assert float(found.std()) == pytest.approx(STD, abs=0.05)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "ode"])
def test_up_and_down_again_is_the_identity(sampler: str) -> None:
    one = walk(sampler=sampler, steps=400, tolerance=1e-5, clip=None)
    start = Latents(1 + STD * random(3, 5), -2 + STD * random(3, 40, 4, seed=1))
    noise = one.up(start)
    assert float(noise.h.mean()) == pytest.approx(0, abs=0.15) and float(noise.h.std()) == pytest.approx(1, abs=0.1)
    back = one.down(noise, None, None)
    torch.testing.assert_close(back.h, start.h, atol=0.03, rtol=0)
    torch.testing.assert_close(back.z, start.z, atol=0.03, rtol=0)


def test_estimates_stay_in_bounds() -> None:
    bad = Walk({"points": lambda x, t, *told: torch.zeros_like(x)}, SDE, SamplingConfig(steps=30, clip=2.5))
    noise = bad.noise(2, (5, 40, 4), seeded(), torch.device("cpu"))
    assert float(bad.down(noise, None, seeded()).h.abs().max()) == pytest.approx(2.5)
    bad.options = SamplingConfig(steps=30, clip=None)
    assert float(bad.down(noise, None, seeded()).h.abs().max()) > 25


def test_noised_latents_lose_what_the_process_says() -> None:
    one, start = walk(), Latents(torch.full((400, 5), 3.0), torch.full((400, 6, 4), 3.0))
    noisy = one.noised(start, 0.5, seeded())
    a, s = SDE.scales(torch.tensor([0.5]), noisy.z)
    assert float(noisy.z.mean()) == pytest.approx(3 * float(a), abs=0.05)
    assert float(noisy.h.std()) == pytest.approx(float(s), abs=0.02)
    bare = Walk({"points": gaussian(0.0)}, SDE, SamplingConfig())
    assert torch.equal(bare.noised(start, 0.5, seeded()).z, start.z)
    assert float(bare.down(latents(2), None, seeded()).z.abs().max()) == 0


def test_a_little_noise_keeps_the_shape() -> None:
    one, start = walk(steps=20), Latents(1 + STD * random(3, 5), -2 + STD * random(3, 40, 4, seed=1))
    near, far = (
        float((one.down(one.noised(start, t, seeded()), None, seeded(), t).h - start.h).abs().mean())
        for t in (0.05, 0.9)
    )
    assert near < 0.2 < far


def test_guidance_leads_away_from_the_untold() -> None:
    model, x, t = gaussian(0.0), random(2, 5), torch.tensor([0.3, 0.6])
    told = torch.tensor([[1.0], [2.0]])
    with_it, without = model(x, t, told), model(x, t, torch.zeros(2, 1))
    torch.testing.assert_close(told_model(model, 3.0, told)(x, t), without + 3 * (with_it - without))
    torch.testing.assert_close(told_model(model, 1.0, told)(x, t), with_it)
    torch.testing.assert_close(told_model(model, 3.0, None)(x, t), model(x, t, None))


def test_between_two_noises_there_is_noise() -> None:
    ends = latents(2)
    many = Latents(random(1, 5000, seed=3), random(1, 500, 4, seed=4)), Latents(random(1, 5000, seed=5),
                                                                                random(1, 500, 4, seed=6))  # fmt: skip
    path = between(*many, torch.tensor([0.0, 0.3, 1.0]))
    assert [float(z.std()) for z in path.z] == pytest.approx([1, 1, 1], abs=0.05)
    torch.testing.assert_close(path.h[0], many[0].h[0])
    torch.testing.assert_close(path.h[2], many[1].h[0])
    assert len(ends) == 2 and ends.repeated(3).z.shape == (6, 5) and torch.equal(ends.repeated(3).z[2], ends.z[0])
