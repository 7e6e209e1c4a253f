"""How near a set of generated point clouds is to a set of real ones (Achlioptas et al. 2018; Yang et al. 2019)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def chamfer_matrix(a: Tensor, b: Tensor) -> Tensor:
    """[A, B] Chamfer distances, squared and summed both ways as published, of clouds [A, N, 3] and [B, M, 3]."""
    rows = []
    for one in a:
        gap = torch.cdist(one.expand(len(b), -1, -1), b).square()
        rows.append(gap.amin(2).mean(1) + gap.amin(1).mean(1))
    return torch.stack(rows)


def earth_mover_matrix(a: Tensor, b: Tensor) -> Tensor:
    """[A, B] mean distances of the best pairing (Hungarian method), of clouds of equally many points."""
    out = torch.zeros(len(a), len(b))
    for i, one in enumerate(a):
        for j, gap in enumerate(torch.cdist(one.expand(len(b), -1, -1), b).cpu().numpy()):
            rows, columns = linear_sum_assignment(gap)
            out[i, j] = float(gap[rows, columns].mean())
    return out


def set_scores(made: Tensor, cross: Tensor, real: Tensor) -> dict[str, float]:
    """1-NNA, MMD and COV from the distances made-made [S, S], made-real [S, R] and real-real [R, R].

    ``1-nna`` is how often a cloud's nearest neighbour is of its own set: 0.5 where the sets cannot be told apart.
    ``mmd`` is the mean distance of a real cloud to the nearest made one; ``cov`` the share of real ones that are some
    made one's nearest.
    """
    own = torch.full_like
    every = torch.cat([torch.cat([made, cross], 1), torch.cat([cross.T, real], 1)])
    every = every.masked_fill(torch.eye(len(every), dtype=torch.bool, device=every.device), torch.inf)
    label = torch.cat([own(made[:, 0], 1.0), own(real[:, 0], 0.0)])
    alike = label[every.argmin(1)] == label
    covered = len(cross.argmin(1).unique()) / len(real)
    return {"1-nna": float(alike.float().mean()), "mmd": float(cross.amin(0).mean()), "cov": covered}
