"""Views of one object leave less error in a fit than views of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.testing import check_component
from plugins.metrics import eval_consistency
from plugins.metrics.eval_consistency import VIEWS, cameras, fitted
from plugins.metrics.eval_reconstruction import psnr
from plugins.metrics.folders import read_yaml
from plugins.metrics.given import given_objects


def test_the_command_keeps_its_contract() -> None:
    assert check_component("command", "eval-consistency")


def test_views_of_several_objects_do_not_fit(tmp_path: Path) -> None:
    job: dict[str, Any] = read_yaml(Path(eval_consistency.__file__).with_name("consistency.yaml"))["job"]
    job["steps"] = 40
    job["geometry"]["count"] = 300
    seen = [one.source.seen_from(cameras())[0] for one in given_objects(None, VIEWS)]
    mixed = torch.stack([views[k] for k, views in enumerate(seen)])

    def error(views: Tensor, name: str) -> float:
        return psnr(fitted(job, "a thing", views, tmp_path / name), views)

    assert error(seen[1], "one") > error(mixed, "several") + 2
