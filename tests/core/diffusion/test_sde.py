"""Stochastic differential equations, the mixed score, its objectives, samplers and likelihood, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from core.diffusion.mixed import MixedScore
from core.diffusion.sde import SDE, VPSDE, SdeConfig
from core.diffusion.sde_objective import (
    Times,
    TimeSampler,
    cross_entropy,
    joint_loss,
    separate_loss,
    squared_error,
    weight,
)
from core.diffusion.sde_sampler import ancestral_samples, log_likelihood, ode_samples
from core.errors import UserError

TYPES = ("vp", "geometric", "sub-vp", "ve")
WIDE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Gaussian:
    """The exact noise prediction where z_0 is N(mean, std^2) in every number."""

    def __init__(self, sde: SDE, mean: float, std: float) -> None:
        self.sde, self.mean, self.std = sde, mean, std

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        a, s = self.sde.scales(t, z)
        return s * (z - a * self.mean) / (a.square() * self.std**2 + s.square())


class Net(nn.Module):
    """A small network that mixes neither samples nor anything with the time."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.layers = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, channels, 1))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.layers(z) + 0.001 * t.view(-1, 1, 1, 1).to(z)


@pytest.mark.parametrize("name", TYPES)
def test_marginals_are_those_of_the_equation(name: str) -> None:
    """Euler-Maruyama in float64 from one z_0: mean and variance at t agree with a_t z_0 and s_t^2."""
    sde = SdeConfig(type=name, last=25.0 if name == "ve" else None).build()  # type: ignore[arg-type]
    steps, end = 1500, 0.6
    first = sde.variance(torch.zeros((), dtype=WIDE))
    z = 1.5 * sde.alpha(torch.zeros((), dtype=WIDE)) + first.sqrt() * torch.randn(6000, dtype=WIDE, generator=seeded())
    times = torch.linspace(0, end, steps + 1, dtype=WIDE)
    dt, generator = end / steps, seeded(1)
    for t in times[:-1] + 0.5 * dt:
        noise = torch.randn(len(z), dtype=WIDE, generator=generator)
        z = z + sde.drift(t) * z * dt + (sde.diffusion_squared(t) * dt).sqrt() * noise
    a, variance = sde.alpha(times[-1]), sde.variance(times[-1])
    assert abs(float(z.mean() - a * 1.5)) < 4 * float(variance.sqrt()) / math.sqrt(len(z)) + 1e-3
    assert float(z.var() / variance) == pytest.approx(1, abs=4 * math.sqrt(2 / len(z)) + 1e-2)


@pytest.mark.parametrize("name", TYPES)
def test_rates_are_slopes(name: str) -> None:
    """f = d log a / dt and g^2 = d s^2 / dt - 2 f s^2, by central differences in float64."""
    sde = SdeConfig(type=name).build()  # type: ignore[arg-type]
    t, h = torch.linspace(0.05, 0.95, 19, dtype=WIDE), 1e-6
    slope = (sde.alpha(t + h).log() - sde.alpha(t - h).log()) / (2 * h)
    torch.testing.assert_close(slope, sde.drift(t), rtol=1e-6, atol=1e-6)
    grown = (sde.variance(t + h) - sde.variance(t - h)) / (2 * h) - 2 * sde.drift(t) * sde.variance(t)
    torch.testing.assert_close(grown, sde.diffusion_squared(t), rtol=1e-5, atol=1e-8)


def test_published_values() -> None:
    vp = VPSDE()
    one = torch.ones((), dtype=WIDE)
    assert float(vp.variance(one)) == pytest.approx(1 - math.exp(-10.05)) and vp.start == 0.01
    geometric = SdeConfig(type="geometric").build()
    assert float(geometric.variance(0 * one)) == pytest.approx(3e-5)
    assert float(geometric.variance(one)) == pytest.approx(0.999) and geometric.start == 0
    assert vp.end_std == pytest.approx(1) and geometric.end_std == pytest.approx(1)


@pytest.mark.parametrize(("shape", "axis"), [((2000, 4, 4, 4), 1), ((8000, 16), 1), ((1000, 32, 4), 2)])
def test_without_a_share_the_ode_gives_unit_gaussians(shape: tuple[int, ...], axis: int) -> None:
    """Logits of minus infinity: whatever the network says, samples are N(0, I)."""

    class Loud(nn.Module):
        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            return 7 * z.cos() + 3

    sde = VPSDE()
    model = MixedScore(Loud(), sde, shape[axis], axis=axis, dims=len(shape), logit=-math.inf)
    z = ode_samples(model, sde, sde.end_noise(shape, seeded()), tolerance=1e-4).latents.flatten().double()
    count = z.numel()
    assert abs(float(z.mean())) < 4 / math.sqrt(count)
    assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float(z.pow(4).mean()) - 3) < 4 * math.sqrt(96 / count)


def test_the_mixture_is_per_channel() -> None:
    sde, z, t = VPSDE(), torch.randn(2, 4, 3, 3, generator=seeded()), torch.tensor([0.2, 0.7])
    model = MixedScore(Net(), sde, 4, logit=0.0)
    assert model.logit is not None
    with torch.no_grad():
        model.logit[0, 1], model.logit[0, 2] = -math.inf, math.inf
    unit, out = sde.unit_noise(z, t), model(z, t)
    s = sde.variance(t).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(unit, s * z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out[:, 1], unit[:, 1])
    torch.testing.assert_close(out[:, 2], model.network(z, 1000 * t)[:, 2])
    torch.testing.assert_close(out[:, 0], 0.5 * (unit + model.network(z, 1000 * t))[:, 0])
    model.pin(torch.tensor([False, True, True, True]))
    out = model(z, t)
    torch.testing.assert_close(out[:, 0], unit[:, 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(out, model(z + torch.tensor([5.0, 0, 0, 0]).view(1, 4, 1, 1), t) - (
        model.sde.unit_noise(torch.tensor([5.0, 0, 0, 0]).view(1, 4, 1, 1).expand_as(z), t)), rtol=1e-3, atol=1e-4)  # fmt: skip
    with pytest.raises(ValueError, match="without a mixture"):
        MixedScore(Net(), sde, 4, logit=None).pin(torch.ones(4, dtype=torch.bool))


def entropies(sde: SDE, rule: str | None, count: int) -> Tensor:
    """Estimates for N(0.3, 0.6^2) latents under the exact score of N(-0.2, 0.8^2), of each [count] draw."""
    z0 = 0.3 + 0.6 * torch.randn(count, 4, generator=seeded())
    times = TimeSampler(sde, rule)(count, seeded(1))  # type: ignore[arg-type]
    noise = torch.randn(z0.shape, generator=seeded(2))
    return cross_entropy(sde, squared_error(Gaussian(sde, -0.2, 0.8), sde, z0, times, noise), times).mean(1)


@pytest.mark.parametrize("rule", [None, "likelihood"])
@pytest.mark.parametrize("name", TYPES)
def test_cross_entropy_of_gaussians(name: str, rule: str | None) -> None:
    """Within 1 % of the analytic value, whether times are drawn uniformly or by importance."""
    sde = SdeConfig(type=name, start=0.1 if name in ("vp", "sub-vp") else None).build()  # type: ignore[arg-type]
    first = torch.tensor(sde.start, dtype=WIDE)
    a, s2 = float(sde.alpha(first)), float(sde.variance(first))
    q, p = a**2 * 0.36 + s2, a**2 * 0.64 + s2
    true = 0.5 * (math.log(2 * math.pi * p) + (q + (a * 0.5) ** 2) / p)
    assert float(entropies(sde, rule, 400_000).mean()) == pytest.approx(true, rel=0.01)


def test_importance_lowers_the_variance() -> None:
    """Where the weight varies over time, as in the published VP-SDE, to less than half."""
    assert float(entropies(VPSDE(), "likelihood", 50_000).var()) < 0.5 * float(entropies(VPSDE(), None, 50_000).var())


@pytest.mark.parametrize("weighting", ["likelihood", "reweighted", "unweighted"])
def test_importance_is_the_published_one(weighting: str) -> None:
    """Distributions of t against their closed forms for a VP-SDE; and weight over density is constant / (1 - s^2)."""
    sde = VPSDE()
    times = TimeSampler(sde, weighting)(40_000, seeded())  # type: ignore[arg-type]
    t = times.t.double()
    one, start = torch.ones((), dtype=WIDE), torch.tensor(sde.start, dtype=WIDE)
    if weighting == "unweighted":  # density in proportion to exp(-B): a Gaussian's, so its integral an error function
        slope = sde.beta_last - sde.beta_first
        centre, scale = -sde.beta_first / slope, math.sqrt(slope / 2)
        level = lambda x: torch.erf(scale * (x - centre))  # noqa: E731
    else:
        level = (lambda x: sde.variance(x).log()) if weighting == "likelihood" else sde.variance
    share = ((level(t) - level(start)) / (level(one) - level(start))).sort().values
    even = (torch.arange(len(t), dtype=WIDE) + 0.5) / len(t)
    assert float((share - even).abs().max()) < 1.63 / math.sqrt(len(t))  # Kolmogorov-Smirnov at 1 %
    ratio = weight(sde, weighting, t) / times.density * (1 - sde.variance(t))  # type: ignore[arg-type]
    inner = t < 0.95  # beyond it 1 - s^2 falls by a share of its own within a cell
    assert float(ratio[inner].std() / ratio[inner].mean()) < 0.02


@pytest.mark.parametrize("rule", [None, "likelihood", "reweighted", "unweighted", ("likelihood", "reweighted")])
def test_times_estimate_integrals_without_bias(rule: str | tuple[str, ...] | None) -> None:
    times = TimeSampler(VPSDE(), rule)(100_000, seeded())  # type: ignore[arg-type]
    estimate = times.t.double().square() * torch.exp(-8 * times.t.double()) / times.density.double()
    x = torch.linspace(0.01, 1, 100_001, dtype=WIDE)
    true = float(torch.trapezoid(x.square() * torch.exp(-8 * x), x))
    assert abs(float(estimate.mean()) - true) < 4 * float(estimate.std()) / math.sqrt(len(times.t))


def test_one_pass_gives_both_gradients() -> None:
    """Against two passes: the latents get the cross entropy's gradient, the parameters the score's, nothing else."""
    sde = VPSDE()
    model = MixedScore(Net(), sde, 4, logit=-1.0).double()
    z0 = torch.randn(6, 4, 3, 3, dtype=WIDE, generator=seeded(), requires_grad=True)
    times = TimeSampler(sde, "unweighted")(6, seeded(1))
    times = Times(times.t.double(), times.density.double())
    noise = torch.randn(z0.shape, dtype=WIDE, generator=seeded(2))
    made = joint_loss(model, sde, z0, times, noise, "unweighted", scale=0.3)
    made.loss.backward()
    got = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]

    entropy = cross_entropy(sde, squared_error(model, sde, z0, times, noise), times)
    (wanted,) = torch.autograd.grad(0.3 * entropy.sum(), z0)
    torch.testing.assert_close(z0.grad, wanted)
    torch.testing.assert_close(made.cross_entropy, entropy.detach())
    error = squared_error(model, sde, z0.detach(), times, noise).flatten(1).sum(1)
    score = (error / times.density).mean()
    torch.testing.assert_close(made.score, score.detach())
    for mine, theirs in zip(got, torch.autograd.grad(score, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs)

    z1 = z0.detach().requires_grad_()
    model.zero_grad()
    separate_loss(model, sde, z1, (times, noise), (times, noise), "unweighted", scale=0.3).loss.backward()
    torch.testing.assert_close(z1.grad, wanted)
    for mine, p in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad)


@pytest.mark.parametrize("name", TYPES)
def test_likelihood_of_a_gaussian(name: str) -> None:
    """The flow from one Gaussian to another is linear, so its log-determinant is known."""
    sde = SdeConfig(type=name, last=100.0 if name == "ve" else None).build()  # type: ignore[arg-type]
    z0 = 0.4 + 0.7 * torch.randn(5, 6, dtype=WIDE, generator=seeded())
    got = log_likelihood(Gaussian(sde, 0.4, 0.7), sde, z0, seeded(1), tolerance=1e-6)
    ends = torch.tensor([0.0 if name in ("geometric", "ve") else 1e-5, 1.0], dtype=WIDE)
    a, std = sde.alpha(ends), (sde.alpha(ends).square() * 0.49 + sde.variance(ends)).sqrt()
    z1 = a[1] * 0.4 + std[1] / std[0] * (z0 - a[0] * 0.4)
    base = -0.5 * (z1.square() / sde.end_std**2 + math.log(2 * math.pi * sde.end_std**2)).sum(1)
    torch.testing.assert_close(got, base + 6 * (std[1] / std[0]).log(), rtol=1e-4, atol=1e-4)
    if name == "vp":  # its end is N(0, 1) whatever it began from, so this is the data's own density
        own = torch.distributions.Normal(torch.tensor(0.4, dtype=WIDE), 0.7).log_prob(z0).sum(1)
        torch.testing.assert_close(got, own, rtol=5e-3, atol=0.02)


def test_samplers_give_the_gaussian_of_the_score() -> None:
    sde = VPSDE()
    model = Gaussian(sde, 0.4, 0.5)
    start = sde.end_noise((3000, 2), seeded())
    coarse, fine = (ode_samples(model, sde, start, tolerance=tol) for tol in (1e-3, 1e-5))
    assert fine.calls > coarse.calls > 10
    ancestral = ancestral_samples(model, sde, start, seeded(1), steps=200)
    for z in (coarse.latents, fine.latents, ancestral.latents):
        assert float(z.mean()) == pytest.approx(0.4, abs=0.03)
        assert float(z.std()) == pytest.approx(0.5, abs=0.03)
    # The flow's map of one Gaussian to another is known: linear.
    torch.testing.assert_close(fine.latents, 0.4 + 0.5 * start, rtol=0.01, atol=0.01)


def test_a_score_that_is_not_finite_is_refused() -> None:
    sde = VPSDE()
    with pytest.raises(UserError, match="not finite at time 1"):
        ode_samples(lambda z, t: z * math.nan, sde, sde.end_noise((2, 3), seeded()))
