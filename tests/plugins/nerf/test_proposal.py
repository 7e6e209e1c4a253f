"""Proposal sampling: quantiles and bounds by counting, eq. 13 by hand, and a fit that needs fewer samples with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.contracts import Context, Step
from core.testing import check_component, reference
from core.types import Render
from plugins.nerf.proposal import bound, excess, interlevel, resample
from plugins.nerf.volume_proposal import VolumeProposal

D = torch.float64


def histogram(rays: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    fences = torch.rand(rays, count + 1, generator=g, dtype=D).sort(-1).values
    return fences, torch.rand(rays, count, generator=g, dtype=D) ** 4


def mass(fences: Tensor, weights: Tensor, t: float) -> float:
    """Weight of one histogram in front of t."""
    inside = ((t - fences[:-1]) / fences.diff()).clamp(0, 1)
    return float((weights * inside).sum())


def test_new_intervals_hold_equal_shares_and_keep_the_ends() -> None:
    fences, weights = histogram(5, 7)
    found = resample(fences, weights, 10)
    assert torch.equal(found[:, [0, -1]], fences[:, [0, -1]])
    for ray in range(5):
        shares = [mass(fences[ray], weights[ray] / weights[ray].sum(), float(t)) for t in found[ray]]
        torch.testing.assert_close(torch.tensor(shares, dtype=D), torch.arange(11, dtype=D) / 10, atol=1e-9, rtol=0)


def test_jitter_moves_inner_fences_only_and_keeps_their_order() -> None:
    fences, weights = histogram(200, 6, seed=3)
    weights[:20] = 0  # nothing there: even
    weights[20:40, :5] = 0  # all in one interval
    jitter = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=D)
    found = resample(fences, weights, 9, jitter, spread=0.1)
    assert torch.equal(found[:, [0, -1]], fences[:, [0, -1]]) and bool((found.diff(dim=-1) >= 0).all())
    even = fences[:20, :1] + (fences[:20, -1:] - fences[:20, :1]) * (torch.arange(1, 9) + jitter[:20, None] - 0.5) / 9
    torch.testing.assert_close(found[:20, 1:-1], even, atol=1e-9, rtol=0)


def test_the_bound_is_the_sum_over_all_that_overlap() -> None:
    outer, weights = histogram(4, 8, seed=1)
    inner, _ = histogram(4, 5, seed=2)
    inner = inner * 1.2 - 0.1  # some lie beyond the ends
    inner[0, 2] = outer[0, 3]  # and one touches without overlapping
    inner = inner.sort(-1).values
    found = bound(outer, weights, inner)
    for ray in range(4):
        for i in range(5):
            a, b = inner[ray, i], inner[ray, i + 1]
            overlaps = (outer[ray, :-1] < b) & (outer[ray, 1:] > a)
            assert float(found[ray, i]) == pytest.approx(float(weights[ray][overlaps].sum()), abs=1e-12)


def test_a_histogram_bounds_whatever_it_is_resampled_to() -> None:
    outer, weights = histogram(30, 8, seed=5)
    inner = resample(outer, weights, 13, torch.rand(30, generator=torch.Generator().manual_seed(2), dtype=D))
    found = torch.stack([
        torch.tensor([mass(o, w, float(t)) for t in i], dtype=D).diff() for o, w, i in zip(outer, weights, inner, strict=True)
    ])  # fmt: skip
    assert float(excess(outer, weights, inner, found).max()) < 1e-20
    assert float(excess(outer, 0.01 * weights, inner, found).min()) > 0


def test_equation_13_by_hand_and_its_gradient() -> None:
    outer, inner = torch.tensor([[0.0, 1.0, 2.0]], dtype=D), torch.tensor([[0.0, 0.5, 1.5, 2.0]], dtype=D)
    weights, found = torch.tensor([[0.1, 0.2]], dtype=D), torch.tensor([[0.4, 0.5, 0.1]], dtype=D)
    wanted = 0.3**2 / 0.4 + 0.2**2 / 0.5  # bounds 0.1, 0.3, 0.2
    assert float(excess(outer, weights, inner, found)) == pytest.approx(wanted, rel=1e-6)
    outer, weights = histogram(3, 6, seed=7)
    inner, found = histogram(3, 9, seed=8)
    assert torch.autograd.gradcheck(lambda w: excess(outer, w, inner, found), (weights.requires_grad_(),))
    found.requires_grad_()
    (one,) = torch.autograd.grad(excess(outer, weights, inner, found).sum(), found, allow_unused=True) or (None,)
    assert one is None  # the scene is not moved by what its proposal thinks


def test_it_keeps_its_contract() -> None:
    options = {"samples": 32, "proposals": [64], "spread": 0.3}
    assert len(check_component("renderer", "volume-proposal", options=options)) >= 20


def test_six_samples_are_enough_where_a_proposal_has_learned() -> None:
    """Mean depth of a soft ball against 200 even samples."""
    context = Context()
    reference.scene(context)
    density = {"levels": 4, "log2_table": 12, "finest": 32, "hidden": 8, "channels": 1}

    def made(**options: object) -> VolumeProposal:
        return VolumeProposal(VolumeProposal.Config(**options), context)  # type: ignore[arg-type]

    views = reference.cameras(16, 2)
    with torch.no_grad():
        true = made(samples=200, proposals=[])(views)
        even = made(samples=6, proposals=[])(views)
    learning = made(samples=6, proposals=[24], density=density)
    optimizer = torch.optim.Adam([{**g, "lr": 0.02} for g in learning.param_groups()])
    for index in range(60):
        step = Step(index, 60)
        learning.update(step)
        loss = interlevel(learning(views, step), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = learning(views)
    seen = true.opacity > 0.9

    def error(render: Render) -> float:
        return float((render.depth - true.depth)[seen].abs().mean())  # type: ignore[operator]

    assert error(even) > 0.05 and error(found) < 0.6 * error(even)
