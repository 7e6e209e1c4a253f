"""DDIM against diffusers' scheduler on the same UNet, and against the closed form on a Gaussian."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from core.diffusion.latent import LatentPrior
from core.diffusion.sampler import ddim, ddim_latents
from core.testing.reference import GaussianPrior


def respaced(bar: Tensor, times: list[int], kind: str) -> Any:
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


def deviations(prior: GaussianPrior, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """How far from the mean a sample ends, and how far ``start`` is from the mean at the last timestep."""
    told = prior.condition(["a red ball"] * len(start))
    assert told.pooled is not None
    mean = told.pooled[:, :, None, None].double()
    end = ddim_latents(prior, start, told, told, 1.0, steps)
    return end - mean, start - prior.process.alphas_cumprod[-1].sqrt() * mean


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 6, 50])
def test_a_gaussian_follows_the_product_of_its_steps(kind: Any, steps: int) -> None:
    """For N(m, v) the estimate is x0 - m = k d with d = x_t - a m and k = a v / (a^2 v + s^2).

    A step multiplies d by a' k + s' (1 - a k) / s, the last one by k.
    """
    prior = GaussianPrior(parametrization=kind)
    start = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end, begin = deviations(prior, start, steps)
    bar = prior.process.alphas_cumprod[torch.linspace(999, 0, steps).round().long()].tolist()
    gain, variance = 1.0, prior.variance
    for now, after in zip(bar, [*bar[1:], 1.0], strict=True):
        a, s = now**0.5, (1 - now) ** 0.5
        k = a * variance / (now * variance + 1 - now)
        gain *= after**0.5 * k + (1 - after) ** 0.5 * (1 - a * k) / s
    torch.testing.assert_close(end, gain * begin, rtol=1e-6, atol=1e-7)  # the mean is given in float32


def test_more_steps_come_nearer_to_the_probability_flow() -> None:
    """Along the flow of N(m, v), d / sqrt(a^2 v + s^2) keeps its value (Song et al. 2021b, appendix)."""
    prior = GaussianPrior()
    start = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bar, v = prior.process.alphas_cumprod, prior.variance
    spread = (bar * v + 1 - bar).sqrt()
    last = bar[0].sqrt() * v / spread[0] ** 2  # from timestep 0 the sampler jumps to the mean of x0
    errors = []
    for steps in (10, 50, 200, 1000):
        end, begin = deviations(prior, start, steps)
        errors.append(float(((end / last) / (begin * spread[0] / spread[-1]) - 1).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1 and errors[-1] < 0.02


def test_pictures_follow_from_the_seed(prior: LatentPrior) -> None:
    told, untold = prior.condition(["a red ball"] * 2), prior.condition([""] * 2)
    torch.manual_seed(0)
    first = ddim(prior, told, untold, 2.0, steps=2, seed=5)
    torch.manual_seed(1)
    assert torch.equal(first, ddim(prior, told, untold, 2.0, steps=2, seed=5))
    assert not torch.equal(first, ddim(prior, told, untold, 2.0, steps=2, seed=6))
    assert first.shape == (2, 16, 16, 3) and not first.requires_grad
    assert float(first.min()) >= 0 and float(first.max()) <= 1
