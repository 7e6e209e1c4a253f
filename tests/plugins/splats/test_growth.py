"""Which Gaussians double, split and go, and what becomes of their numbers."""

from __future__ import annotations

import math

import pytest
import torch

from core.contracts import Step
from core.kernels.splatting.pictures import draw
from core.testing import reference
from core.types import Splats
from plugins.splats.growth import Change, GrowthConfig, grown, plan

GRADIENT = torch.tensor([0.0, 5.0, 3.0, 9.0, 1.0, 4.0])
SCALES = torch.tensor([0.01, 0.01, 0.2, 0.01, 0.9, 0.01])[:, None].expand(6, 3)
OPACITIES = torch.tensor([0.5, 0.5, 0.5, 0.001, 0.5, 0.5])
RADIUS = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.1, 0.7])


def config(**options: object) -> GrowthConfig:
    return GrowthConfig.model_validate({"share": 0.5, "split": 0.1, "faint": 0.01, "largest": 0.5} | options)


def planned(**options: object) -> Change:
    return plan(config(**options), GRADIENT, RADIUS, SCALES, OPACITIES)


def test_the_largest_gradients_grow_and_the_faint_and_large_go() -> None:
    change = planned()
    # 3 is faint, 4 is large; of the rest 1 and 5 are cloned, and 2, which is wide, is split.
    assert change.source.tolist() == [0, 1, 5, 1, 5, 2, 2]
    assert change.fresh.tolist() == [False] * 3 + [True] * 4
    assert change.halved.tolist() == [False] * 5 + [True] * 2
    assert change.shared.tolist() == [False, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("options", "source"),
    [({"above": 4.5}, [0, 1, 2, 5, 1]), ({"share": 0.0}, [0, 1, 2, 5]), ({"share": 0.2}, [0, 1, 2, 5, 1]),
     ({"most": 5}, [0, 1, 2, 5, 1]), ({"most": 1}, [0, 1, 2, 5]), ({"widest": 0.5}, [0, 1, 1, 2, 2]),
     ({"faint": 0.9}, [])],
)  # fmt: skip
def test_thresholds_shares_and_the_largest_number(options: dict[str, float], source: list[int]) -> None:
    assert planned(**options).source.tolist() == source


def test_a_clone_leaves_the_opacity_and_a_split_is_smaller_and_inside() -> None:
    change = planned()
    turn = torch.tensor([1.0, 0, 0, 0]).expand(6, 4)
    values = {"means": torch.zeros(6, 3), "log_scales": SCALES.log(), "quaternions": turn, "logits": torch.logit(OPACITIES), "colors": GRADIENT[:, None]}
    new = grown(change, values, torch.Generator().manual_seed(0))
    opacity = torch.sigmoid(new["logits"])
    pair = opacity[[1, 3]]
    assert float(1 - (1 - pair).prod()) == pytest.approx(0.5, abs=1e-5) and float(opacity[0]) == pytest.approx(0.5)
    torch.testing.assert_close(new["log_scales"][5:].exp(), torch.full((2, 3), 0.2 / 1.6))
    torch.testing.assert_close(new["log_scales"][:5].exp(), torch.full((5, 3), 0.01))
    assert bool((new["means"][:3] == 0).all()) and bool((new["means"][3:] != 0).all())
    assert float(new["means"][5:].abs().max()) < 4 * 0.2 and new["colors"][:, 0].tolist() == [0, 5, 4, 5, 4, 3, 3]
    again = grown(change, values, torch.Generator().manual_seed(0))
    assert all(torch.equal(again[name], value) for name, value in new.items())


def test_two_clones_at_one_place_look_as_one_did() -> None:
    one = Splats(torch.zeros(1, 3), torch.full((1, 3), 0.3), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0.6]), torch.ones(1, 1, 3))
    shared = 1 - math.sqrt(1 - 0.6)
    two = Splats(*(getattr(one, n).repeat(2, *[1] * (getattr(one, n).dim() - 1)) for n in ("means", "scales", "rotations")),
                 torch.full((2,), shared), torch.ones(2, 1, 3))  # fmt: skip
    views = reference.cameras(24, 1)
    seen, again = draw(one, views), draw(two, views)
    assert float(again.opacity[0, 12, 12]) == pytest.approx(float(seen.opacity[0, 12, 12]), abs=0.01)


def test_when_it_is_time() -> None:
    options = config(every=10, start="10%", end=60)
    due = [k for k in range(101) if options.due(Step(k, 101), options.every)]
    assert due == [19, 29, 39, 49, 59]
    assert not any(config(every=0).due(Step(k, 10), 0) for k in range(10))
