"""DDIM against diffusers' scheduler on the same UNet, and against the closed form on a Gaussian."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from core.diffusion.latent import LatentPrior
from core.diffusion.sampler import ddim, ddim_latents
from core.testing.reference import GaussianPrior


def respaced(bar: torch.Tensor, times: list[int], kind: str) -> Any:
    """A DDIM scheduler whose whole process are the given timesteps of ``bar``."""
    kept = bar[sorted(times)]
    ratio = kept / torch.cat([torch.ones(1, dtype=bar.dtype), kept[:-1]])
    peer = DDIMScheduler(
        len(times), trained_betas=(1 - ratio).tolist(), prediction_type=kind, clip_sample=False, set_alpha_to_one=True
    )
    peer.alphas_cumprod = kept
    peer.final_alpha_cumprod = torch.ones((), dtype=kept.dtype)
    peer.set_timesteps(len(times))
    return peer


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_it_takes_the_steps_of_the_diffusers_scheduler(prior: LatentPrior, scale: float) -> None:
    told, untold = prior.condition(["a red ball", "a blue cube"]), prior.condition(["", ""])
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = ddim_latents(prior, start, told, untold, scale, steps=7)
    times = torch.linspace(999, 0, 7).round().long().tolist()
    assert times[0] == 999 and times[-1] == 0
    peer, x = respaced(prior.process.alphas_cumprod, times, "v_prediction"), start
    for k, t in zip(peer.timesteps.tolist(), times, strict=True):
        with torch.no_grad():
            plain, free = (prior.unet(x, t, encoder_hidden_states=c.text).sample for c in (told, untold))
            x = peer.step(free + scale * (plain - free), k, x).prev_sample.float()
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
    assert float((found - start).abs().mean()) > 0.1


def test_one_step_is_the_estimate_of_x0_at_the_last_timestep(prior: LatentPrior) -> None:
    told, start = prior.condition(["a red ball"]), torch.ones(1, 4, 8, 8)
    t = torch.tensor([999])
    with torch.no_grad():
        wanted = prior.process.to_x0(prior.predict(start, t, told), start, t)
    torch.testing.assert_close(ddim_latents(prior, start, told, told, 1.0, 1), wanted)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_gaussian_is_mapped_by_the_ratio_of_spreads(kind: Any) -> None:
    """The probability flow of N(m, v) is linear: (x_t - a m) / sqrt(a^2 v + s^2) keeps its value from T to 0."""
    prior = GaussianPrior(parametrization=kind)
    told = prior.condition(["a red ball"] * 4)
    start = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = ddim_latents(prior, start, told, told, 1.0, steps=1000)
    assert told.pooled is not None
    mean = told.pooled[:, :, None, None].double()
    bar = prior.process.alphas_cumprod[-1]
    spread = (bar * prior.variance + 1 - bar).sqrt()
    wanted = mean + prior.variance**0.5 * (start - bar.sqrt() * mean) / spread
    # 1000 Euler steps of an equation with error of first order in the step.
    assert float((found - wanted).abs().max()) < 0.02
    assert float((found - mean).std()) == pytest.approx(0.1, rel=0.05)


def test_more_steps_come_nearer_to_the_flow() -> None:
    prior = GaussianPrior()
    told = prior.condition(["a red ball"])
    start = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = ddim_latents(prior, start, told, told, 1.0, 1000)
    errors = [float((ddim_latents(prior, start, told, told, 1.0, n) - exact).abs().max()) for n in (10, 50, 200)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_pictures_follow_from_the_seed(prior: LatentPrior) -> None:
    told, untold = prior.condition(["a red ball"] * 2), prior.condition([""] * 2)
    torch.manual_seed(0)
    first = ddim(prior, told, untold, 2.0, steps=2, seed=5)
    torch.manual_seed(1)
    assert torch.equal(first, ddim(prior, told, untold, 2.0, steps=2, seed=5))
    assert not torch.equal(first, ddim(prior, told, untold, 2.0, steps=2, seed=6))
    assert first.shape == (2, 16, 16, 3) and not first.requires_grad
    assert float(first.min()) >= 0 and float(first.max()) <= 1
