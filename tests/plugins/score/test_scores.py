"""Every score against its formula on a mixture of Gaussians, in float64; and defects that others have had."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from core.contracts import Away, Context, Step
from core.discovery import get_registry
from core.types import Cameras, Render

from mixture import MEANS, Mixture, points, samples, told  # isort: skip

NAMES = ("sds", "sjc", "vsd", "csd", "nfsd", "ism", "sdi", "hifa", "flow")
KINDS = ("epsilon", "v_prediction", "sample", "flow")
B, HALF = 6, Step(3, 10, seed=1)
FIXED = {"low": 0.5, "high": 0.5, "anneal": "none"}


def made(name: str, **options: Any) -> Any:
    target = get_registry().find("score", name).load()
    return target(target.Config(**options), Context())


def gradient(name: str, kind: str = "epsilon", step: Step = HALF, **options: Any) -> Tensor:
    prior = Mixture(kind)
    found: Tensor = made(name, **options).gradient(prior, points(B), *told(prior, B), step)
    return found


def drawn(score: Any, prior: Mixture, x: Tensor, step: Step) -> Any:
    """The query of a step, whose level and noise are public."""
    return score.query(prior, x, *told(prior, len(x)), step)


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-7) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def noise_of(prior: Mixture, x: Tensor, t: Tensor, text: str) -> Tensor:
    """-s times the slope of log p_t, by autograd: nothing of the prior's own prediction is used."""
    a, s = prior.process.scales(t, x)
    leaf, weights = x.clone().requires_grad_(), prior.condition([text] * len(x)).pooled
    assert weights is not None
    (slope,) = torch.autograd.grad(prior.log_density(leaf, a, s, weights).sum(), leaf)
    return -s * slope


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_sds_is_the_closed_form_of_a_mixture(kind: str, scale: float) -> None:
    """s/a (eps_hat - eps), with eps_hat from the density itself."""
    prior, score, x = Mixture(kind), made("sds", scale=scale), points(B)
    q = drawn(score, prior, x, HALF)
    plain, free = (noise_of(prior, q.noisy, q.t, text) for text in ("right", ""))
    wanted = q.s / q.a * (free + scale * (plain - free) - q.noise)
    close(score.gradient(prior, x, *told(prior, B), HALF), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_scores_agree_over_parametrisations(name: str) -> None:
    plain = gradient(name)
    assert bool(torch.isfinite(plain).all()) and float(plain.abs().max()) > 1e-3
    for kind in ("v_prediction", "sample"):
        close(gradient(name, kind), plain, 1e-6)
    assert bool(torch.isfinite(gradient(name, "flow")).all())


@pytest.mark.parametrize("name", ["sds", "sjc", "vsd", "csd", "nfsd"])
def test_a_flow_prior_leads_as_one_with_the_same_signal_to_noise(name: str) -> None:
    """What a picture minus its estimate is depends on s / a alone."""
    bar = Mixture().process.alphas_cumprod[500]
    ratio = float(((1 - bar) / bar).sqrt())
    level = ratio / (1 + ratio)
    more = {"variance_reduction": False} if name == "sjc" else {}
    plain = gradient(name, weighting="x0", **more, **FIXED)
    close(gradient(name, "flow", weighting="x0", **more, **(FIXED | {"low": level, "high": level})), plain, 1e-5)


def test_sjc_is_sds_with_uniform_weights_and_without_reduction_the_noise_itself() -> None:
    at = {"low": 0.01, "high": 0.97, "scale": 3.0}
    close(gradient("sjc", scale=3.0), gradient("sds", weighting="uniform", **at))
    prior, score, x = Mixture(), made("sjc", scale=1.0, variance_reduction=False), points(B)
    q = drawn(score, prior, x, HALF)
    close(score.gradient(prior, x, *told(prior, B), HALF), noise_of(prior, q.noisy, q.t, "right"))


def test_csd_is_what_guidance_adds_to_sds() -> None:
    wanted = gradient("sds", scale=5.0, weighting="uniform") - gradient("sds", scale=4.0, weighting="uniform")
    close(gradient("csd"), wanted)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_csd_leads_from_the_negative_by_its_share(share: float) -> None:
    prior, score, x = Mixture(), made("csd", negative_weight=share), points(B)
    q = drawn(score, prior, x, HALF)
    y, empty, left = (noise_of(prior, q.noisy, q.t, text) for text in ("right", "", "left"))
    found = score.gradient(prior, x, *told(prior, B, negative="left"), HALF)
    close(found, y - (1 - share) * empty - share * left)
    assert prior.rows == (2 if share in (0.0, 1.0) else 3) * B


@pytest.mark.parametrize("level", [0.1, 0.6])
def test_nfsd_takes_the_prediction_apart(level: float) -> None:
    prior, score, x = Mixture(), made("nfsd", low=level, high=level, unwanted="left", weighting="uniform"), points(B)
    q = drawn(score, prior, x, HALF)
    y, empty, left = (noise_of(prior, q.noisy, q.t, text) for text in ("right", "", "left"))
    domain = empty if level < 0.2 else empty - left
    close(score.gradient(prior, x, *told(prior, B), HALF), domain + 7.5 * (y - empty))


def test_hifa_in_one_step_without_colours_is_sds() -> None:
    one = {"denoise_steps": 1, "image_weight": 0.0, "low": 0.3}
    level = 0.3 + (0.98 - 0.3) * (1 - (3 / 9) ** 0.5)
    close(gradient("hifa", **one), gradient("sds", scale=100.0, low=level, high=level))


def test_hifa_denoises_in_steps_and_compares_colours() -> None:
    prior, score = Mixture(), made("hifa", scale=1.0, denoise_steps=3, image_weight=0.2, **FIXED)
    x, step = points(B).requires_grad_(), HALF
    q = drawn(score, prior, x.detach(), step)
    z = q.noisy
    for now, after in ((0.5, 1 / 3), (1 / 3, 1 / 6), (1 / 6, None)):
        t = prior.process.timestep(torch.full((B,), now))
        noise = noise_of(prior, z, t, "right")
        a, s = prior.process.scales(t, z)
        x0 = (z - s * noise) / a
        if after is not None:
            z = prior.process.add_noise(x0, noise, prior.process.timestep(torch.full((B,), after)))
    colours = prior.decode(x.detach()) + 1
    render = Render(colours.clone().requires_grad_(), colours[..., :1], Cameras.turntable(torch.zeros(B), 0.0, 1))
    loss = score.loss(prior, x, *told(prior, B), step, render=render)
    of_latents, of_colours = torch.autograd.grad(loss, [x, render.rgb])
    close(of_latents * B, x.detach() - x0)
    close(of_colours * B, 0.2 * (colours - prior.decode(x0)))


def test_flow_distils_the_velocity() -> None:
    prior, score, x = Mixture("flow"), made("flow", scale=2.0), points(B)
    q = drawn(score, prior, x, HALF)
    hat = [noise_of(prior, q.noisy, q.t, text) for text in ("right", "")]
    guided = hat[1] + 2.0 * (hat[0] - hat[1])
    velocity = guided - (q.noisy - q.s * guided) / q.a
    close(score.gradient(prior, x, *told(prior, B), HALF), velocity - (q.noise - x))


def walked(prior: Mixture, x: Tensor, levels: list[float], scale: float) -> Tensor:
    """DDIM from one level to the next, straight from the density."""
    for now, after in zip(levels, levels[1:], strict=False):
        t, then = (prior.process.timestep(torch.full((len(x),), v)) for v in (now, after))
        y, empty = (noise_of(prior, x, t, text) for text in ("right", ""))
        noise = empty + scale * (y - empty)
        a, s = prior.process.scales(t, x)
        x = prior.process.add_noise((x - s * noise) / a, noise, then)
    return x


def test_ism_is_the_difference_over_an_interval() -> None:
    prior, x = Mixture(), points(B)
    found = made("ism", scale=3.0, delta_t=0.0625, **FIXED).gradient(prior, x, *told(prior, B), HALF)
    x_s = walked(prior, x, [0.4375 * k / 3 for k in range(4)], 0.0)  # in steps of at most 0.2
    s, t = (prior.process.timestep(torch.full((B,), v)) for v in (0.4375, 0.5))
    below = noise_of(prior, x_s, s, "")
    x_t = walked(prior, x_s, [0.4375, 0.5], 0.0)
    y, empty = (noise_of(prior, x_t, t, text) for text in ("right", ""))
    a, sigma = prior.process.scales(t, x)
    close(found, sigma / a * (empty + 3.0 * (y - empty) - below), 1e-6)


def test_sdi_is_sds_at_the_inverted_noise() -> None:
    prior, x = Mixture(), points(B)
    found = made("sdi", scale=3.0, inversion_scale=-3.0, eta=0.0, **FIXED).gradient(prior, x, *told(prior, B), HALF)
    x_t = walked(prior, x, [k / 10 for k in range(6)], -3.0)
    t = prior.process.timestep(torch.full((B,), 0.5))
    y, empty = (noise_of(prior, x_t, t, text) for text in ("right", ""))
    a, s = prior.process.scales(t, x)
    kappa = (x_t - a * x) / s
    close(found, s / a * (empty + 3.0 * (y - empty) - kappa), 1e-6)


@pytest.mark.parametrize(("name", "share"), [("ism", 1e-9), ("sdi", 0.5)])
def test_inversion_takes_variance_away(name: str, share: float) -> None:
    """Over draws at one level; ISM draws nothing there, SDI little (eta)."""
    spread = {}
    for which in ("sds", name):
        found = torch.stack([gradient(which, step=Step(0, 1, seed=k), weighting="x0", **FIXED) for k in range(24)])
        spread[which] = float(found.var(0).sum())
    assert spread[name] < share * spread["sds"]


def descend(name: str, count: int, steps: int, **options: Any) -> Tensor:
    """[count, 2] where particles come to rest; what a score learns is learned beside."""
    prior, score = Mixture(), made(name, scale=1.0, weighting="sds", high=0.3, **options)
    x = (0.5 * points(count, 3)).requires_grad_()
    conditions = told(prior, count)
    groups: list[Any] = [{"params": [x], "lr": 0.06}]
    if name == "vsd":
        score.attach(prior)
        groups.append({"params": list(score.parameters()), "lr": 4e-3})
    optimizer = torch.optim.Adam(groups, betas=(0.5, 0.99))
    for k in range(steps):
        for group, rate in zip(optimizer.param_groups, (0.06, 4e-3), strict=False):
            group["lr"] = rate * (1 - 0.9 * k / steps)
        loss = score.loss(prior, x, *conditions, Step(k, steps))
        loss = count * loss + sum(score.losses().values()) if name == "vsd" else count * loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return x.detach().flatten(1)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Szekely & Rizzo 2013; 0 for equal distributions."""
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


def test_vsd_approaches_the_mixture_where_sds_collapses() -> None:
    """Two modes of deviation 0.3 (ProlificDreamer, sec. 4 and fig. 2): SDS gathers in points, VSD keeps the spread."""
    true = samples(400, 0.09, [0.0, 0.5, 0.5])
    sds, vsd = descend("sds", 64, 240), descend("vsd", 64, 240, width=32)

    def within(x: Tensor) -> float:
        nearest = torch.cdist(x, MEANS[1:]).argmin(1)
        groups = [x[nearest == k] for k in (0, 1) if int((nearest == k).sum()) > 1]
        return sum(float(g.var(0).sum()) * len(g) for g in groups) / len(x)

    assert within(sds) < 0.25 * within(true)
    assert 0.4 * within(true) < within(vsd) < 2.5 * within(true)
    assert energy_distance(vsd, true) < 0.5 * energy_distance(sds, true)


@pytest.mark.parametrize("name", NAMES)
def test_perp_neg_fits_every_score_and_no_weight_is_no_change(name: str) -> None:
    """D6: with a weight of 0 the guidance scale means what it means without; the branches must not differ by one."""
    prior, x = Mixture(), points(B)
    conditions = told(prior, B)

    def found(*weights: float) -> Tensor:
        away = [Away(prior.condition(["left"] * B), torch.full((B,), w)) for w in weights]
        score = made(name, scale=3.0, **({"unwanted": "top"} if name == "nfsd" else {}))
        out: Tensor = score.gradient(prior, x, *conditions, HALF, away)
        return out

    close(found(0.0), found())
    assert float((found(1.0) - found()).abs().max()) > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_averaging_draws_is_the_mean_of_their_gradients(name: str) -> None:
    prior, score, x = Mixture(), made(name, samples=3), points(B)
    q = drawn(score, prior, x, HALF)
    assert q.latents.shape[0] == 3 * B and torch.equal(q.latents[:B], q.latents[B : 2 * B])
    with torch.no_grad():
        each = (score.residual(q) * score._weight(q)).view(3, B, 2, 1, 1)
    close(score.gradient(prior, x, *told(prior, B), HALF), each.mean(0))


@pytest.mark.parametrize("name", NAMES)
def test_no_score_decodes_for_nothing(name: str) -> None:
    """D4: the rival decodes a picture in every step of SDS and throws it away."""
    prior, score = Mixture(), made(name, **({"image_weight": 0.0} if name == "hifa" else {}))
    score.loss(prior, points(B).requires_grad_(), *told(prior, B), HALF)
    assert prior.decoded == 0


@pytest.mark.parametrize(("name", "rows"), [("sds", 2), ("sjc", 2), ("csd", 2), ("nfsd", 3), ("vsd", 2), ("flow", 2)])
def test_no_half_of_a_batch_is_thrown_away(name: str, rows: int) -> None:
    prior = Mixture()
    made(name).loss(prior, points(B).requires_grad_(), *told(prior, B), HALF)
    assert prior.rows == rows * B


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_step_draws_what_the_first_run_drew(name: str) -> None:
    """D7, D8: level and noise follow from seed and index, whatever ran before; schedules are those of the index."""
    prior, x = Mixture(), points(B)
    first = made(name)
    for k in range(3):
        first.loss(prior, x.clone().requires_grad_(), *told(prior, B), Step(k, 10, seed=1))
    close(first.gradient(prior, x, *told(prior, B), HALF), gradient(name), 0.0)
    late = {"from": 0.9, "to": 0.1}
    assert float(made(name, low=late, high=late).levels(2, Step(9, 10)).max()) < 0.11


def test_wrong_options_are_told_with_their_value() -> None:
    """D16: the message holds the value itself; lists in a number's place are refused too."""
    with pytest.raises(ValidationError, match=r"found 1\.5"):
        made("sds", high=1.5)
    for options in ({"scale": [1, 2]}, {"rescale": {"a": 1}}, {"anneal": "cosine"}, {"samples": 0}, {"clip": -1.0}):
        with pytest.raises(ValidationError):
            made("sds", **options)


def test_each_score_has_a_name_of_its_own_and_comes_with_the_project() -> None:
    """D18, D19: nothing is registered twice, and every score's code is the project's own."""
    entries = list(get_registry().entries("score"))
    assert {*NAMES} <= {entry.name for entry in entries}
    assert len({entry.name for entry in entries}) == len(entries)


def test_annealing_goes_from_high_to_low() -> None:
    for anneal, half in (("linear", 0.5), ("sqrt", 1 - 0.5**0.5)):
        score = made("sds", low=0.2, high=0.8, anneal=anneal)
        found = [float(score.levels(3, Step(k, 101)).unique()) for k in (0, 50, 100)]
        assert found == pytest.approx([0.8, 0.2 + 0.6 * half, 0.2])


def test_dreamtime_spends_time_as_its_prior_says() -> None:
    """Huang et al. 2023, eq. 9: t(i) is where the weight above t is the share i / N of all."""
    from plugins.score.levels import dreamtime

    score = made("sds", anneal="linear", time_prior="dreamtime")
    fine = torch.linspace(0.02, 0.98, 4000, dtype=torch.float64)
    weight = dreamtime(fine)
    for k in (100, 250, 500, 900):
        above = float(weight[fine > float(score.levels(1, Step(k, 1001)))].sum() / weight.sum())
        assert above == pytest.approx(k / 1000, abs=2e-3)
    assert float(dreamtime(torch.tensor([0.65]))) > 5 * float(dreamtime(torch.tensor([0.2])))
    spread = made("sds", time_prior="dreamtime").levels(1000, HALF)
    assert float(spread.min()) >= 0.02 and float(spread.max()) <= 0.98 and float((spread > 0.5).float().mean()) > 0.8


def test_dynamic_thresholding_brings_x0_into_its_range() -> None:
    """Saharia et al. 2022, sec. 2.3: clip at the quantile where it is beyond the range, then divide by it."""
    prior, x = Mixture(), points(B)
    wild = made("sds", scale=50.0, **FIXED).gradient(prior, x, *told(prior, B), HALF)
    tame = made("sds", scale=50.0, dynamic_threshold=1.0, threshold_range=1.5, **FIXED)
    x0, free = x - tame.gradient(prior, x, *told(prior, B), HALF), x - wild
    size = free.abs().amax((1, 2, 3), keepdim=True).clamp(min=1.5)
    close(x0, free * 1.5 / size)
    assert float(x0.abs().max()) <= 1.5 + 1e-9 < float(free.abs().max())


def test_clipping_may_grow_over_the_run() -> None:
    score = made("sds", clip={"from": 0.01, "to": 0.1})
    for index, bound in ((0, 0.01), (9, 0.1)):
        prior, x = Mixture(), points(B).requires_grad_()
        score.loss(prior, x, *told(prior, B), Step(index, 10)).backward()
        assert x.grad is not None and float(x.grad.abs().max()) * B == pytest.approx(bound)


def test_weightings_are_those_of_their_papers() -> None:
    q = drawn(made("sds"), Mixture(), points(B), HALF)
    noise = gradient("sds") * q.a / q.s
    for weighting, factor in (("uniform", 1.0), ("sds", q.s**2), ("fantasia3d", q.a * q.s**2), ("x0", q.s / q.a)):
        close(gradient("sds", weighting=weighting), noise * factor)


def test_one_gaussian_of_rows_is_not_the_next() -> None:
    """The noise of one picture is not that of another, nor of the next step."""
    noise = [drawn(made("sds"), Mixture(), points(B), Step(k, 10)).noise.flatten() for k in range(2)]
    assert len(torch.cat(noise).unique()) == 2 * 2 * B and math.isfinite(float(noise[0].sum()))


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_second_guidance_moves_the_gradient_at_every_scale(scale: float, samples: int) -> None:
    """InstructPix2Pix: nothing + 1.5 (picture - nothing) + scale (both - picture), at scale 0 too."""
    prior, x = Mixture(), points(B)
    score = made("sds", scale=scale, samples=samples, **FIXED)
    away = [Away(prior.condition(["left"] * B), torch.full((B,), 0.5), both=True)]
    q = score.query(prior, x, *told(prior, B), HALF, away)
    plain, free, nothing = (noise_of(prior, q.noisy, q.t, text) for text in ("right", "", "left"))
    wanted = nothing + 1.5 * (free - nothing) + scale * (plain - free)
    close(
        score.gradient(prior, x, *told(prior, B), HALF, away),
        (q.s / q.a * (wanted - q.noise)).view(samples, *x.shape).mean(0),
    )
    aside = [Away(away[0].condition, away[0].weight)]  # Perp-Neg moves the told end, of which scale 0 has nothing
    prior.rows = 0
    moved = score.gradient(prior, x, *told(prior, B), HALF, aside)
    if scale == 0:
        close(moved, (q.s / q.a * (free - q.noise)).view(samples, *x.shape).mean(0))
        assert prior.rows == samples * B
