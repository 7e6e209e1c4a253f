"""Random cameras, and objects that are not framed alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.testing import check_component
from plugins.procedural.dataset import _framings, _reframe, orbit, sample_batch


def test_a_camera_stands_to_an_object_as_to_the_scaled_and_moved_one() -> None:
    """Every point of the object falls on the same place of the picture."""
    rng = np.random.default_rng(0)
    c2w = orbit(rng.uniform(0, 6, 4), rng.uniform(-0.2, 1, 4), rng.uniform(2.8, 3.2, 4))
    owner, points = np.array([0, 0, 1, 1]), rng.uniform(-0.5, 0.5, (7, 3))
    factor, offset = _framings(rng, 2, (0.8, 1.3), 0.2)
    assert (factor >= 0.8).all() and (factor <= 1.3).all() and (np.linalg.norm(offset, axis=1) <= 0.2).all()

    def seen(cameras: Any, world: Any) -> Any:
        local = np.einsum("bij,bni->bnj", cameras[:, :3, :3], world - cameras[:, None, :3, 3])
        return local[..., :2] / -local[..., 2:]

    wanted = seen(c2w, factor[owner, None, None] * points + offset[owner, None])
    assert np.abs(wanted - seen(c2w, points[None])).max() > 0.02
    _reframe(c2w, owner, factor, offset)
    np.testing.assert_allclose(seen(c2w, points[None]), wanted, atol=1e-12)


def test_a_pool_may_frame_each_object_differently() -> None:
    """Objects' pictures are larger or smaller and off the middle, alike in both of an object's pictures."""
    plain, framed = sample_batch(3, 16, 32), sample_batch(3, 16, 32, scale=(0.6, 0.6), shift=0.0)
    assert plain["seed"].tolist() == framed["seed"].tolist() and np.allclose(plain["azimuth"], framed["azimuth"])

    def covered(batch: Any) -> Any:
        rgb = batch["rgb"].astype(float)
        return (np.abs(rgb - rgb[:, :1, :1]).max(-1) > 6).mean((1, 2))

    ratio = covered(framed) / covered(plain)
    assert (np.abs(ratio - 0.6**2) < 0.12).all()
    np.testing.assert_allclose(framed["c2w"][:, :3, 3], plain["c2w"][:, :3, 3] / 0.6, rtol=1e-5)


@pytest.mark.parametrize("name", ["procedural", "procedural-scenes"])
def test_a_pool_keeps_the_contract_of_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path))
    options = {"images": 8, "batch": 4, "size": 16, "views": 2, "scale": [0.9, 1.1], "shift": 0.1}
    if name == "procedural-scenes":
        del options["scale"], options["shift"]
    assert "'rgb' has one row per example" in check_component("data", name, options=options)
