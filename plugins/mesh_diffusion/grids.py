"""Fitted grids of a pool of shapes, made once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import torch
from torch import Tensor

from core.cache import cache_folder
from plugins.mesh_diffusion.fitting import Space

log = logging.getLogger("maquette")

_VERSION = 1


def fitted_grids(data: Any, space: Space, split: str | None = None, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Values [N, V, 4] of the shapes of a pool, or of the first ``count`` of another ``split``, and classes [N]."""
    count = len(data) if count is None else count
    split = split or data.options.split
    what = [
        _VERSION,
        data.identity,
        data.categories,
        split,
        count,
        space.grid.resolution,
        space.extent,
        space.deform_scale,
    ]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
    path = cache_folder() / f"grids-{key}.pt"
    label = torch.tensor([data.category(k) for k in range(count)])
    if path.is_file():
        return torch.load(path, weights_only=True), label
    rows = []
    for k in range(count):
        if k % 100 == 0:
            log.info("fitting grids: %d of %d", k, count)
        rows.append(space.fit(data.shape(k, split).distance))
    values = torch.stack(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    torch.save(values, half)
    half.replace(path)  # a pool that was cut off is none
    return values, label
