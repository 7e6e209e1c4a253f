"""Which points of a set stand for it, and which are near to which: farthest-point sampling, ball query, interpolation.

Coordinates are [B, 3, N] and features [B, C, N], channels before points, as convolutions want them. Nothing here
depends on the order of the points, ties apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from core.errors import UserError


@torch.no_grad()
def farthest_points(coords: Tensor, count: int) -> Tensor:
    """Indices [B, count] of a spread-out subset (Eldar et al. 1997; Qi et al. 2017, "PointNet++").

    The first is the point farthest from the mean, so that the choice does not depend on the order; each further one is
    the point farthest from those chosen. The cost is N times ``count``.

    Raises:
        UserError: more points are asked for than there are.
    """
    if count > coords.shape[2]:
        raise UserError(
            f"{count} points cannot be chosen of {coords.shape[2]}: ask for fewer centres or give more points"
        )
    if coords.device.type == "cpu":
        return torch.from_numpy(_chosen(np.ascontiguousarray(coords.float().transpose(1, 2).numpy()), count))
    batch = torch.arange(len(coords), device=coords.device)
    points, out = coords.transpose(1, 2), []
    gap = torch.full(points.shape[:2], torch.inf, device=coords.device)
    last = (points - points.mean(1, keepdim=True)).square().sum(-1).argmax(1)
    for _ in range(count):
        out.append(last)
        gap = torch.minimum(gap, (points - points[batch, last][:, None]).square().sum(-1))
        last = gap.argmax(1)
    return torch.stack(out, 1)


@njit(cache=True)
def _chosen(points: Any, count: int) -> Any:
    sets, n = points.shape[0], points.shape[1]
    out = np.empty((sets, count), np.int64)
    gap = np.empty(n)
    for b in range(sets):
        x, y, z = 0.0, 0.0, 0.0
        for i in range(n):
            x, y, z = x + points[b, i, 0], y + points[b, i, 1], z + points[b, i, 2]
            gap[i] = np.inf
        x, y, z, last, best = x / n, y / n, z / n, 0, -1.0
        for i in range(n):
            d = (points[b, i, 0] - x) ** 2 + (points[b, i, 1] - y) ** 2 + (points[b, i, 2] - z) ** 2
            if d > best:
                best, last = d, i
        for k in range(count):
            out[b, k] = last
            x, y, z, far, best = points[b, last, 0], points[b, last, 1], points[b, last, 2], 0, -1.0
            for i in range(n):
                d = (points[b, i, 0] - x) ** 2 + (points[b, i, 1] - y) ** 2 + (points[b, i, 2] - z) ** 2
                gap[i] = min(gap[i], d)
                if gap[i] > best:
                    best, far = gap[i], i
            last = far
    return out


def take(features: Tensor, index: Tensor) -> Tensor:
    """Features [B, C, N] at ``index`` [B, ...]: [B, C, ...]."""
    flat = index.flatten(1)[:, None].expand(-1, features.shape[1], -1)
    return features.gather(2, flat).view(*features.shape[:2], *index.shape[1:])


@torch.no_grad()
def ball_query(coords: Tensor, centers: Tensor, radius: float, count: int) -> Tensor:
    """Indices [B, M, count] of the nearest points of ``coords`` [B, 3, N] within ``radius`` of ``centers`` [B, 3, M].

    Where fewer are so near, the nearest is named again (a maximum does not mind), even if it lies farther away.
    """
    gap, index = squared_distances(centers, coords).topk(min(count, coords.shape[2]), largest=False)
    return torch.where(gap <= radius**2, index, index[..., :1])


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[B, M, N] between ``a`` [B, 3, M] and ``b`` [B, 3, N], exact to float32 where sets are near the origin."""
    cross = torch.bmm(a.transpose(1, 2), b)
    return (a.square().sum(1)[:, :, None] + b.square().sum(1)[:, None] - 2 * cross).clamp(min=0)


def interpolate(coords: Tensor, centers: Tensor, features: Tensor) -> Tensor:
    """[B, C, N] features at ``coords`` [B, 3, N]: of the three nearest ``centers`` [B, 3, M] with ``features``
    [B, C, M], weighted by the inverse of the squared distance (Qi et al. 2017, eq. 2)."""
    with torch.no_grad():
        gap, index = squared_distances(coords, centers).topk(min(3, centers.shape[2]), largest=False)
        weight = 1 / gap.clamp(min=1e-8)
        weight = weight / weight.sum(-1, keepdim=True)
    return (take(features, index) * weight[:, None]).sum(-1)
