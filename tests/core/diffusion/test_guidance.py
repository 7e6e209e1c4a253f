"""Classifier-free guidance is one formula, whatever is predicted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts import Away
from core.diffusion.guidance import combine, perpendicular, predict_with_guidance
from core.testing.reference import GaussianPrior, cameras
from core.types import Condition

KINDS: list[Any] = ["epsilon", "v_prediction", "sample"]


def asked(prior: GaussianPrior) -> tuple[Tensor, Tensor, Condition, Condition]:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(3, 3, 16, 16, generator=generator, dtype=torch.float64)
    views = cameras(16, 3)
    told, untold = prior.condition(["a red ball", "a cat", "a mug"], views), prior.condition([""] * 3, views)
    return noisy, torch.tensor([10, 500, 990]), told, untold


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 7.5, 100.0])
def test_guidance_is_uncond_plus_scale_times_the_difference(scale: float) -> None:
    prior = GaussianPrior()
    noisy, t, told, untold = asked(prior)
    plain, free = prior.predict(noisy, t, told), prior.predict(noisy, t, untold)
    guided = predict_with_guidance(prior, noisy, t, told, untold, scale)
    torch.testing.assert_close(guided, free + scale * (plain - free), rtol=1e-10, atol=1e-10)
    assert torch.equal(combine(free, plain, 0.0), free)


def test_guidance_of_a_gaussian_moves_its_mean_by_the_scale() -> None:
    """Both denoisers are affine with one slope, so the guided one is the denoiser of the mean scaled likewise."""
    prior = GaussianPrior(parametrization="sample")
    noisy, t, told, untold = asked(prior)
    guided = predict_with_guidance(prior, noisy, t, told, untold, 3.0)
    assert told.pooled is not None
    moved = Condition(text=told.text, pooled=3.0 * told.pooled, camera=told.camera)
    torch.testing.assert_close(guided, prior.predict(noisy, t, moved), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_means_the_same_for_noise_v_and_x0(kind: Any) -> None:
    prior, peer = GaussianPrior(parametrization=kind), GaussianPrior(parametrization="sample")
    noisy, t, told, untold = asked(prior)
    x0 = prior.process.to_x0(predict_with_guidance(prior, noisy, t, told, untold, 7.5), noisy, t)
    wanted = predict_with_guidance(peer, noisy, t, told, untold, 7.5)
    torch.testing.assert_close(x0, wanted, rtol=1e-6, atol=1e-6)


def test_the_network_is_asked_once_with_both_texts_and_only_for_what_counts() -> None:
    class Counting(GaussianPrior):
        rows: list[int] = []

        def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
            self.rows.append(len(noisy))
            return super().predict(noisy, t, condition)

    prior = Counting()
    for scale in (7.5, 1.0):
        predict_with_guidance(prior, *asked(prior), scale)
    assert prior.rows == [6, 3]


def test_perp_neg_takes_away_what_is_perpendicular_to_the_wanted_direction() -> None:
    """Armandpour et al. 2023, eq. 6: uncond + s (d - w (e - <e, d> / <d, d> d)), d and e the texts' directions."""
    prior = GaussianPrior()
    noisy, t, told, untold = asked(prior)
    others = [prior.condition([text] * 3, cameras(16, 3)) for text in ("a boat", "a tree")]
    weights = [torch.tensor([0.0, 1.0, 0.5]), torch.tensor([2.0, 0.0, 0.25])]
    away = [Away(other, weight) for other, weight in zip(others, weights, strict=True)]
    free = prior.predict(noisy, t, untold)
    wanted = direction = prior.predict(noisy, t, told) - free
    for other, weight in zip(others, weights, strict=True):
        e = prior.predict(noisy, t, other) - free
        share = (e * direction).sum((1, 2, 3)) / direction.square().sum((1, 2, 3))
        rest = e - share.view(-1, 1, 1, 1) * direction
        assert float((rest * direction).detach().sum((1, 2, 3)).abs().max()) < 1e-9
        wanted = wanted - weight.view(-1, 1, 1, 1) * rest
    found = predict_with_guidance(prior, noisy, t, told, untold, 7.5, away)
    torch.testing.assert_close(found, free + 7.5 * wanted, rtol=1e-9, atol=1e-9)
    plain = predict_with_guidance(prior, noisy, t, told, untold, 7.5)
    assert not torch.allclose(found, plain)
    along = [Away(told, torch.ones(3))]  # the wanted text itself has nothing perpendicular to it
    torch.testing.assert_close(predict_with_guidance(prior, noisy, t, told, untold, 7.5, along), plain)


def test_nothing_is_perpendicular_to_no_direction() -> None:
    a = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(perpendicular(a, torch.zeros(2, 3)), a)
