"""Score distillation against closed forms on a Gaussian, whose exact denoiser is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from core.config.schedule import Schedule
from core.contracts import Context, Step
from core.testing import check_component
from core.testing.reference import GaussianPrior, cameras
from core.types import Condition
from plugins.score.sds import SDS

KINDS: list[Any] = ["epsilon", "v_prediction", "sample", "flow"]
B = 4


def score(**options: Any) -> SDS:
    return SDS(SDS.Config(**options), Context())


def asked(prior: GaussianPrior, count: int = B) -> tuple[Tensor, Condition, Condition]:
    """Latents in float64, the condition of a text and the empty one."""
    latents = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    views = cameras(16, count)
    return latents, prior.condition(["a red ball"] * count, views), prior.condition([""] * count, views)


def mean_of(condition: Condition) -> Tensor:
    assert condition.pooled is not None
    return condition.pooled.double()[:, :, None, None]


def drawn(made: SDS, prior: GaussianPrior, latents: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Timesteps, noise, a and s of a step, from its public streams."""
    t = prior.process.timestep(made.levels(len(latents), step))
    noise = torch.randn(latents.shape, generator=step.generator("score-noise")).double()
    a, s = prior.process.scales(t, latents)
    return t, noise, a, s


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_its_contract(kind: Any) -> None:
    options = {"weighting": {"epsilon": "x0", "v_prediction": "sds", "sample": "uniform", "flow": "fantasia3d"}[kind]}
    assert len(check_component("score", "sds", options=options)) >= 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_gradient_is_the_closed_form_of_a_gaussian(kind: Any, scale: float) -> None:
    """x0_hat = m + k (x_t - a m), m = scale times the text's mean, k = a v / (a^2 v + s^2)."""
    prior, made, step = GaussianPrior(parametrization=kind), score(scale=scale), Step(3, 10)
    latents, told, untold = asked(prior)
    _, noise, a, s = drawn(made, prior, latents, step)
    m, k = scale * mean_of(told), a * prior.variance / (a**2 * prior.variance + s**2)
    wanted = latents - m - k * (a * latents + s * noise - a * m)
    found = made.gradient(prior, latents, told, untold, step)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_on_average_it_pulls_towards_the_mean() -> None:
    """E[x - x0_hat] = (x - m) s^2 / (a^2 v + s^2) at one level."""
    prior, made = GaussianPrior(), score(scale=1.0, low=0.6, high=0.6)
    latents, told, untold = asked(prior)
    rounds = 300
    total = sum((made.gradient(prior, latents, told, untold, Step(i, rounds)) for i in range(rounds)), torch.zeros(()))
    bar = prior.process.alphas_cumprod[600]
    spread = bar * prior.variance + 1 - bar
    wanted = (latents - mean_of(told)) * (1 - bar) / spread
    noise = float(bar.sqrt() * prior.variance / spread * (1 - bar).sqrt()) / rounds**0.5
    assert float((total / rounds - wanted).abs().max()) < 5 * noise


@pytest.mark.parametrize("weighting", ["x0", "sds", "uniform"])
def test_the_gradient_is_w_times_the_error_of_the_noise(weighting: Any) -> None:
    """Poole et al. 2022, eq. 3: w (eps_hat - eps), with w = s/a, s^2 or 1."""
    prior, made, step = GaussianPrior(parametrization="v_prediction"), score(scale=4.0, weighting=weighting), Step(0, 1)
    latents, told, untold = asked(prior)
    t, noise, a, s = drawn(made, prior, latents, step)
    noisy = prior.process.add_noise(latents, noise, t)
    plain, free = (prior.process.to_noise(prior.predict(noisy, t, c), noisy, t) for c in (told, untold))
    error = free + 4.0 * (plain - free) - noise
    weight = {"x0": s / a, "sds": s**2, "uniform": torch.ones_like(s)}[weighting]
    torch.testing.assert_close(made.gradient(prior, latents, told, untold, step), weight * error, rtol=1e-5, atol=1e-5)


def test_weightings_are_related_by_known_factors() -> None:
    prior, step = GaussianPrior(), Step(5, 10)
    latents, told, untold = asked(prior)
    x0, sds, uniform = (
        score(weighting=w).gradient(prior, latents, told, untold, step) for w in ("x0", "sds", "uniform")
    )
    _, _, a, s = drawn(score(), prior, latents, step)
    torch.testing.assert_close(uniform, x0 * a / s)
    torch.testing.assert_close(sds, x0 * a * s)


def test_autograd_of_the_loss_is_the_gradient_shared_among_the_pictures() -> None:
    prior, made, step = GaussianPrior(), score(), Step(2, 10)
    latents, told, untold = asked(prior)
    leaf = latents.clone().requires_grad_()
    loss = made.loss(prior, leaf, told, untold, step)
    loss.backward()
    gradient = made.gradient(prior, latents, told, untold, Step(2, 10))
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, gradient / B)
    assert loss.item() == pytest.approx(0.5 * float(gradient.square().sum()) / B)
    assert step.metrics["sds_norm"] == pytest.approx(float(gradient.norm()) / B**0.5)


def test_the_gradient_goes_on_into_what_made_the_latents() -> None:
    prior, made = GaussianPrior(), score()
    latents, told, untold = asked(prior)
    brightness = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    made.loss(prior, latents * brightness, told, untold, Step(0, 1)).backward()
    gradient = made.gradient(prior, latents * 0.5, told, untold, Step(0, 1))
    assert brightness.grad is not None
    assert float(brightness.grad) == pytest.approx(float((gradient * latents).sum()) / B)


def test_no_gradient_reaches_the_prior() -> None:
    prior, made = GaussianPrior(), score()
    latents, told, untold = asked(prior)
    made.loss(prior, latents.requires_grad_(), told, untold, Step(0, 1)).backward()
    assert prior.gain.grad is None


def test_what_the_prior_believes_in_is_left_where_it_is() -> None:
    """Descending the score brings any start to the mean of the guided prior."""
    prior, made = GaussianPrior(), score(scale=1.0)
    latents, told, untold = asked(prior)
    for index in range(60):
        latents = latents - 0.3 * made.gradient(prior, latents, told, untold, Step(index, 60))
    assert float((latents - mean_of(told)).abs().max()) < 0.15  # a standard deviation of the prior is 0.1


@pytest.mark.parametrize("count", [1, 4, 16])
def test_levels_are_stratified_within_their_range(count: int) -> None:
    made = score(low=0.2, high=0.7)
    for index in range(30):
        levels = made.levels(count, Step(index, 30)).sort().values
        share = (levels - 0.2) / 0.5 * count
        assert bool((share >= torch.arange(count) - 1e-4).all()) and bool((share <= torch.arange(count) + 1.0001).all())


def test_every_picture_sees_every_level_in_time() -> None:
    levels = torch.stack([score(low=0.0, high=1.0).levels(4, Step(k, 400)) for k in range(400)])
    # Uniform in [0, 1] for each picture: mean 1/2 and spread 1/sqrt(12), by four standard errors.
    assert float((levels.mean(0) - 0.5).abs().max()) < 4 * (1 / 12 / 400) ** 0.5
    assert float((levels.std(0) - 12**-0.5).abs().max()) < 0.03


def test_levels_follow_their_schedules_and_never_cross() -> None:
    made = score(low={"from": 0.5, "to": 0.1}, high={"from": 0.9, "to": 0.3})
    first, last = made.levels(64, Step(0, 101)), made.levels(64, Step(100, 101))
    assert 0.5 <= float(first.min()) < 0.51 and 0.89 < float(first.max()) <= 0.9
    assert 0.1 <= float(last.min()) < 0.11 and 0.29 < float(last.max()) <= 0.3
    assert torch.equal(score(low=0.6, high=0.4).levels(3, Step(0, 1)), torch.full((3,), 0.6))


def test_the_scale_may_follow_a_schedule() -> None:
    prior = GaussianPrior()
    latents, told, untold = asked(prior)
    ramp = score(scale=Schedule.parse({"from": 2.0, "to": 10.0}))
    for index, scale in ((0, 2.0), (50, 6.0), (100, 10.0)):
        found = ramp.gradient(prior, latents, told, untold, Step(index, 101))
        assert torch.equal(found, score(scale=scale).gradient(prior, latents, told, untold, Step(index, 101)))


def test_a_negative_text_takes_the_place_of_the_empty_one() -> None:
    """Guidance leads from the negative's mean: m = n + scale (m_text - n)."""
    prior, made, step = GaussianPrior(), score(scale=3.0), Step(1, 10)
    latents, told, _ = asked(prior)
    negative = prior.condition(["a blue cube"] * B, cameras(16, B))
    _, noise, a, s = drawn(made, prior, latents, step)
    n = mean_of(negative)
    m, k = n + 3.0 * (mean_of(told) - n), a * prior.variance / (a**2 * prior.variance + s**2)
    wanted = latents - m - k * (a * latents + s * noise - a * m)
    torch.testing.assert_close(made.gradient(prior, latents, told, negative, step), wanted, rtol=1e-5, atol=1e-5)


def test_clipping_bounds_every_element() -> None:
    prior = GaussianPrior()
    latents, told, untold = asked(prior)
    leaf = latents.clone().requires_grad_()
    score(clip=0.05).loss(prior, leaf, told, untold, Step(0, 1)).backward()
    wanted = score().gradient(prior, latents, told, untold, Step(0, 1)).clamp(-0.05, 0.05)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad * B, wanted)


@pytest.mark.parametrize("rescale", [0.5, 1.0])
def test_rescaling_pulls_the_spread_of_x0_back(rescale: float) -> None:
    """Lin et al. 2023, eq. 15-16: at 1, x0 has the spread of the prediction without guidance."""
    prior, step = GaussianPrior(), Step(0, 1)
    latents, told, untold = asked(prior)

    def x0(scale: float, **options: float) -> Tensor:
        return latents - score(scale=scale, **options).gradient(prior, latents, told, untold, step)

    guided, plain = (x0(scale).std((1, 2, 3)) for scale in (7.5, 1.0))
    found = x0(7.5, rescale=rescale).std((1, 2, 3))
    torch.testing.assert_close(found, rescale * plain + (1 - rescale) * guided)


def test_the_precision_of_the_latents_is_kept() -> None:
    prior = GaussianPrior()
    latents, told, untold = asked(prior)
    assert score().gradient(prior, latents.float(), told, untold, Step(0, 1)).dtype == torch.float32


@pytest.mark.parametrize(
    "options", [{"low": -0.1}, {"high": 1.5}, {"rescale": 2.0}, {"clip": -1.0}, {"weighting": "none"}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SDS.Config(**options)
