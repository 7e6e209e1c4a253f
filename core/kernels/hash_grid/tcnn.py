"""The hash grid of tiny-cuda-nn, fed so that it computes this project's encoding to the letter.

tiny-cuda-nn places a point at ``x * scale + 0.5`` where ours is at ``x * resolution``. One single-level encoding per
resolution, with base resolution r + 1 (hence scale r) and the points moved by -0.5 / r, lands on the same vertices,
dense layout and hash, so tables are interchangeable between backends and checkpoints move between machines.
"""

from __future__ import annotations

from functools import lru_cache

import tinycudann
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import pad

from . import reference
from .spec import is_dense


def encode(points: Tensor, table: Tensor, resolutions: tuple[int, ...]) -> Tensor:
    """Hash-encode points: see :func:`core.kernels.hash_grid.hash_grid` for the contract; computes in float32.

    Second derivatives are tiny-cuda-nn's: of the points' gradient, not of the table's.
    """
    if table.shape[2] not in (1, 2, 4, 8):  # all that tiny-cuda-nn is built for
        return reference.encode(points, table, resolutions)
    x = points.clamp(0, 1).float()
    levels = []
    for i, resolution in enumerate(resolutions):
        module = _level(resolution, table.shape[1], table.shape[2], table.device.index or 0)
        size = sum(p.numel() for p in module.parameters())
        rows = table[i].float().reshape(-1)[:size]
        rows = pad(rows, (0, size - rows.numel()))  # it rounds dense levels up to 8 rows
        levels.append(functional_call(module, {"params": rows}, (x - 0.5 / resolution,)))
    return torch.cat(levels, -1).to(points.dtype)


@lru_cache(maxsize=64)
def _level(resolution: int, rows: int, features: int, device: int) -> torch.nn.Module:
    """A one-level encoding; its own parameters are never used."""
    grid = {
        "otype": "Grid",
        "type": "Dense" if is_dense(resolution, rows) else "Hash",
        "n_levels": 1,
        "n_features_per_level": features,
        "log2_hashmap_size": rows.bit_length() - 1,
        "base_resolution": resolution + 1,
        "per_level_scale": 1.0,
        "interpolation": "Linear",
    }
    with torch.cuda.device(device):
        return tinycudann.Encoding(3, grid, dtype=torch.float32)
