"""The hash encoding in plain PyTorch: any float type, any device, differentiable as often as asked."""

from __future__ import annotations

import torch
from torch import Tensor

from .spec import is_dense

PRIMES = (1, 2_654_435_761, 805_459_861)  # Müller et al. 2022, below eq. 4


def encode(points: Tensor, table: Tensor, resolutions: tuple[int, ...]) -> Tensor:
    """Hash-encode points: see :func:`core.kernels.hash_grid.hash_grid` for the contract."""
    x = points.clamp(0, 1)
    levels = [_level(x, table[i], r) for i, r in enumerate(resolutions)]
    return torch.cat(levels, -1)


def _level(x: Tensor, rows: Tensor, resolution: int) -> Tensor:
    """Trilinear interpolation in one level: x [N, 3], rows [T, F] -> [N, F]."""
    scaled = x * resolution
    # The cell is found from a NaN-free copy so that a NaN point gives a NaN feature and no wild index.
    cell = scaled.detach().nan_to_num().floor().clamp(max=resolution - 1)
    t = scaled - cell
    low = cell.long()
    corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], device=x.device)
    index = _row(low[:, None, :] + corners, resolution, rows.shape[0])  # [N, 8]
    weight = torch.where(corners.bool(), t[:, None, :], 1 - t[:, None, :]).prod(-1)  # [N, 8]
    return (weight[..., None] * rows[index]).sum(1)


def _row(vertex: Tensor, resolution: int, rows: int) -> Tensor:
    """Row of each vertex [..., 3] in the table: dense where it fits, else the xor-prime hash (eq. 4)."""
    x, y, z = vertex.unbind(-1)
    if is_dense(resolution, rows):
        side = resolution + 1
        return x + side * (y + side * z)
    return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & (rows - 1)
