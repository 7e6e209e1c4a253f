"""Surface points as a data source."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.contracts import Context, Step
from core.discovery import get_registry
from core.errors import UserError
from plugins.procedural.objects import make_object
from plugins.procedural.points import ProceduralPoints


def test_points_lie_on_their_objects_and_follow_from_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path))
    made = get_registry().find("data", "procedural-points").load()
    assert made is ProceduralPoints
    options = made.Config(objects=2, points=32, kept=64, batch=2, categories=("mug", "rocket"), pictures=True)
    data, step = made(options, Context()), Step(3, 10, seed=1)
    batch = data.batch(step)
    again = made(options, Context()).batch(step)  # from the file
    assert batch["points"].shape == (2, 32, 3) and torch.equal(batch["points"], again["points"])
    assert not torch.equal(batch["points"], data.batch(Step(4, 10, seed=1))["points"])
    whole = data.take(torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert whole["label"].tolist() == [0, 1] and "mug" in whole["caption"][0] and "rocket" in whole["caption"][1]
    for k, name in enumerate(options.categories):
        distance = make_object(k, name).sdf(whole["points"][k].numpy())
        assert abs(distance).max() < 2e-3
    torch.testing.assert_close(whole["normals"].norm(dim=-1), torch.ones(2, 32), rtol=1e-3, atol=1e-3)
    assert whole["rgb"].shape == (2, 64, 64, 3) and 0 <= whole["rgb"].min() < whole["rgb"].max() <= 1


def test_unknown_kinds_and_too_many_points_are_refused() -> None:
    with pytest.raises(UserError, match="no procedural object is a 'mgu'.*mug"):
        ProceduralPoints(ProceduralPoints.Config(categories=("mgu",)), Context())
    with pytest.raises(UserError, match="data.points is 100, but only 64"):
        ProceduralPoints(ProceduralPoints.Config(points=100, kept=64), Context())
