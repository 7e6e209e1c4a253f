"""The prior sees what it may see, answers with a clean whitened embedding, and is sampled as the schedule says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from plugins.unclip.folder import Family
from plugins.unclip.networks import PriorConfig, whiten
from plugins.unclip.objectives import prior_loss
from plugins.unclip.sampling import best_of, enlarge, respaced, sample_embedding, sample_large
from plugins.unclip.tower import Told

TEXTS = ["a red mug", "a small toy of a blue robot"]


def run(prior: Any, told: Told, x: torch.Tensor, t: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """The answer, and the last block's tokens."""
    kept: list[torch.Tensor] = []
    handle = prior.transformer_blocks[-1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    out = prior(x, torch.tensor(t), told.embedding, told.states, told.mask).predicted_image_embedding
    handle.remove()
    return out, kept[0]


def changed(told: Told, row: int, place: int) -> Told:
    states = told.states.clone()
    states[row, place] += 1.0
    return Told(states, told.embedding, told.mask)


@torch.no_grad()
def test_a_token_sees_those_before_it_alone(family: Family) -> None:
    prior, told, x = family.networks["prior"], family.tower.tell(TEXTS), torch.randn(2, 16)
    before = run(prior, told, x)[1]
    after = run(prior, changed(told, 1, 3), x)[1]
    moved = (before - after).abs().amax(-1) > 1e-6
    assert not moved[0].any() and not moved[1, :3].any()
    length = int(told.mask[1].sum())
    assert moved[1, 3:length].all() and moved[1, -4:].all()


@torch.no_grad()
def test_padding_is_not_seen_and_the_four_further_slots_are(family: Family) -> None:
    prior, told, x = family.networks["prior"], family.tower.tell(TEXTS), torch.randn(2, 16)
    before = run(prior, told, x)[0]
    padding = int(told.mask[0].sum())
    assert padding < told.states.shape[1]
    assert torch.equal(before, run(prior, changed(told, 0, padding), x)[0])
    assert (before - run(prior, changed(told, 0, padding - 1), x)[0]).abs().max() > 1e-6
    other_text = Told(told.states, told.embedding + 1, told.mask)
    for out in (run(prior, other_text, x)[0], run(prior, told, x + 1)[0], run(prior, told, x, 700)[0]):
        assert (before - out).abs().amax(1).min() > 1e-6


@torch.no_grad()
def test_the_answer_is_read_off_the_last_token(family: Family) -> None:
    prior, told = family.networks["prior"], family.tower.tell(TEXTS)
    out, tokens = run(prior, told, torch.randn(2, 16))
    assert tokens.shape[1] == 24 + 4
    torch.testing.assert_close(out, prior.proj_to_clip_embeddings(prior.norm_out(tokens[:, -1])))


@torch.no_grad()
def test_whitening_and_back(family: Family) -> None:
    z = torch.randn(64, 16) * torch.linspace(0.1, 3, 16) + 5
    networks = torch.nn.ModuleDict({k: v for k, v in family.networks.items() if k in ("prior", "text_proj")})
    projection: Any = networks["text_proj"]
    first = projection.clip_image_embeddings_project_to_time_embeddings
    start = [p.clone() for p in first.parameters()]
    # `family` has whitened once: what the layer is now acts on raw embeddings, so start again from an identity.
    whiten(networks, z.mean(0), z.std(0))
    prior: Any = networks["prior"]
    white = (z - prior.clip_mean) / prior.clip_std
    torch.testing.assert_close(white.std(0), torch.ones(16))
    torch.testing.assert_close(prior.post_process_latents(white), z)
    torch.testing.assert_close(first(z), white @ start[0].T + start[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(projection.learned_classifier_free_guidance_embeddings, z.mean(0))


class Known:
    """A prior that answers the same whatever it is asked, and notes what that was."""

    def __init__(self, family: Family, answer: torch.Tensor) -> None:
        self.answer, self.heard = answer, []
        self.clip_mean, self.clip_std = (getattr(family.networks["prior"], n) for n in ("clip_mean", "clip_std"))

    def __call__(self, x: Any, t: Any, embedding: Any, states: Any, mask: Any) -> Any:
        self.heard.append((x, t, embedding, mask))
        return SimpleNamespace(predicted_image_embedding=self.answer)


def test_the_objective_is_the_clean_embedding(family: Family) -> None:
    z = torch.randn(512, 16) * 3 + 1
    told, empty = family.tower.tell(["a red mug"] * 512), family.tower.tell([""])
    scheduler = family.schedulers["prior_scheduler"]
    white = (z - family.networks["prior"].clip_mean) / family.networks["prior"].clip_std
    right, nothing = Known(family, white), Known(family, torch.zeros_like(white))

    def loss(prior: Any) -> float:
        draw = torch.Generator().manual_seed(0)
        return float(prior_loss({"prior": prior}, scheduler, PriorConfig(text_drop=0.25), z, told, empty, draw)["prior"])  # type: ignore[arg-type]

    assert loss(right) == pytest.approx(0, abs=1e-9)
    assert loss(nothing) == pytest.approx(float(white.square().mean()), rel=1e-4)
    dropped = (right.heard[0][2] == empty.embedding).all(1).float().mean()
    assert 0.18 < float(dropped) < 0.32
    assert torch.equal(right.heard[0][3].sum(1) == empty.mask.sum(), (right.heard[0][2] == empty.embedding).all(1))


@pytest.mark.parametrize("steps", [7, 25])
def test_respacing_is_karlos(family: Family, steps: int) -> None:
    pairs = respaced(family.schedulers["prior_scheduler"], steps)
    assert [int(t) for t, _ in pairs] == np.round(np.linspace(0, 999, steps))[::-1].astype(int).tolist()
    assert [None if a is None else int(a) for _, a in pairs] == [*[int(t) for t, _ in pairs][1:], None]


def test_an_upsampler_may_start_from_the_enlarged_picture(family: Family) -> None:
    """Told the noise exactly, it comes to the enlarged picture itself, from noise alone and from part of the way."""
    scheduler = family.schedulers["super_res_scheduler"]
    small = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    beside = enlarge(small, 32).clamp(-1, 1)
    seen: list[int] = []

    def exact(x: torch.Tensor, t: torch.Tensor) -> Any:
        seen.append(int(t))
        a = scheduler.alphas_cumprod[t]
        return SimpleNamespace(sample=(x[:, :3] - a.sqrt() * x[:, 3:]) / (1 - a).sqrt())

    exact.config = SimpleNamespace(sample_size=32)  # type: ignore[attr-defined]
    for start in (1.0, 0.35):
        seen.clear()
        found = sample_large(exact, exact, scheduler, small, 5, torch.Generator().manual_seed(2), start)
        torch.testing.assert_close(found, beside, rtol=0, atol=2e-2)
        assert seen == [round(999 * start * k / 4) for k in (4, 3, 2, 1, 0)]


def test_sampling_draws_from_a_gaussian_whose_denoiser_is_known(family: Family) -> None:
    """x0 ~ N(m, s^2): E[x0 | x_t] is linear in x_t, so what comes out must have that mean and spread."""
    mean, spread, count = 1.5, 0.4, 4096
    scheduler = family.schedulers["prior_scheduler"]

    def ideal(x: torch.Tensor, t: torch.Tensor, *_: Any) -> Any:
        a = scheduler.alphas_cumprod[t]
        gain = a.sqrt() * spread**2 / (a * spread**2 + 1 - a)
        return SimpleNamespace(predicted_image_embedding=mean + gain * (x - a.sqrt() * mean))

    class Ideal:
        config = SimpleNamespace(embedding_dim=4)
        __call__ = staticmethod(ideal)

        @staticmethod
        def post_process_latents(x: torch.Tensor) -> torch.Tensor:
            return x

    told = Told(torch.zeros(count, 1, 4), torch.zeros(count, 4), torch.ones(count, 1, dtype=torch.bool))
    made = sample_embedding(Ideal(), scheduler, told, told, 4.0, 250, torch.Generator().manual_seed(0))
    assert float(made.mean()) == pytest.approx(mean, abs=0.02)
    assert float(made.std()) == pytest.approx(spread, abs=0.015)


def test_the_better_of_two(family: Family) -> None:
    torch.manual_seed(1)
    candidates, text = torch.randn(2, 6, 16), torch.randn(6, 16)
    kept = best_of(candidates, text)
    cosine = torch.nn.functional.cosine_similarity
    likeness = torch.stack([cosine(c, text) for c in candidates])
    torch.testing.assert_close(cosine(kept, text), likeness.amax(0))
    assert {int(k) for k in likeness.argmax(0)} == {0, 1}
