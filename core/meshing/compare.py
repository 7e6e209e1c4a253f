"""How far apart two shapes are: Chamfer distance, F-score, volumetric intersection over union."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from core.errors import UserError
from core.meshing.distance import contains
from core.types import Mesh


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each of points ``a`` [N, 3] the distance [N] to the nearest of ``b`` [M, 3], and which it is [N] int64.

    Distances are differentiable in both.

    Raises:
        UserError: a set is empty or not finite.
    """
    for name, points in (("first", a), ("second", b)):
        if len(points) == 0:
            raise UserError(f"the {name} set of points is empty, so there is no distance between the two")
        if not bool(torch.isfinite(points).all()):
            raise UserError(f"the {name} set of points has numbers that are not finite")
    _, index = cKDTree(b.detach().cpu().double().numpy()).query(a.detach().cpu().double().numpy())
    chosen = torch.from_numpy(np.asarray(index, np.int64)).to(a.device)
    return (a - b[chosen]).norm(dim=-1), chosen


def chamfer(a: Tensor, b: Tensor, squared: bool = False) -> Tensor:
    """The Chamfer distance of two sets of points [N, 3], [M, 3]: half the sum of the mean distances each way.

    In world units (the mean of squares with ``squared``); differentiable in both sets. Fan et al. 2017 sum squares both
    ways: twice ours with ``squared``.
    """
    ab, ba = nearest(a, b)[0], nearest(b, a)[0]
    if squared:
        ab, ba = ab.square(), ba.square()
    return 0.5 * (ab.mean() + ba.mean())


def f_scores(found: Tensor, true: Tensor, thresholds: Sequence[float]) -> list[float]:
    """F-scores at distances in world units (Knapitsch et al. 2017): the harmonic mean of the share of ``found`` points
    [N, 3] near the ``true`` ones [M, 3] and of the converse."""
    ab, ba = nearest(found.detach(), true.detach())[0], nearest(true.detach(), found.detach())[0]
    out = []
    for threshold in thresholds:
        precision, recall = float((ab <= threshold).double().mean()), float((ba <= threshold).double().mean())
        out.append(0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall))
    return out


def volume_iou(a: Mesh, b: Mesh, resolution: int = 64) -> float:
    """Intersection over union of the solids that two meshes enclose, counted at the centres of ``resolution``^3 cells
    of their common box; 1 where both are empty.

    Raises:
        UserError: a mesh has no faces or vertices that are not finite.
    """
    both = torch.cat([a.vertices.detach(), b.vertices.detach().to(a.vertices)])
    low, high = both.amin(0), both.amax(0)
    axis = (torch.arange(resolution, device=both.device, dtype=both.dtype) + 0.5) / resolution
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    points = low + cells * (high - low)
    in_a, in_b = contains(points, a), contains(points, b)
    union = int((in_a | in_b).sum())
    return int((in_a & in_b).sum()) / union if union else 1.0
