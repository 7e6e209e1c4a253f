"""The distance of two sets of features: how far what a model draws is from what it was to draw."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to features [N, D] and [M, D] (Heusel et al. 2017)."""
    x, y = x.double(), y.double()
    a, b = ((v - v.mean(0)) / (len(v) - 1) ** 0.5 for v in (x, y))  # covariances are a^T a and b^T b
    common = torch.linalg.svdvals(a @ b.T).sum()  # the trace of the root of their product
    return float((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * common)
