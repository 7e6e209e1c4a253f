"""What a set of Gaussians starts as: random points, given points, or the splats of a file."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from core.spherical_harmonics import Y0
from core.types import Points, Splats

_FLATNESS = 0.3  # thickness of a Gaussian on a surface as a share of its width
_NEIGHBOURS = 3


def random_ball(count: int, radius: float, generator: torch.Generator) -> Points:
    """Points evenly in a ball, of nearly grey colours."""
    direction = F.normalize(torch.randn(count, 3, generator=generator), dim=-1, eps=1e-9)
    distance = radius * torch.rand(count, 1, generator=generator) ** (1 / 3)
    colors = 0.5 + 0.1 * (torch.rand(count, 3, generator=generator) - 0.5)
    return Points(direction * distance, None, colors)


def splats_of(points: Points, opacity: float, size: float, degree: int) -> Splats:
    """A Gaussian at every point, as wide as the mean distance to its three nearest neighbours, times ``size``.

    Where normals are known Gaussians lie flat on the surface. Colours default to grey.
    """
    positions = points.positions.detach().float()
    count = len(positions)
    width = (size * spacing(positions)).clamp(min=1e-5)[:, None].expand(-1, 3).clone()
    turn = torch.zeros(count, 4)
    turn[:, 0] = 1.0
    if points.normals is not None:
        width[:, 2] *= _FLATNESS
        turn = turn_to(points.normals.detach().float())
    colors = torch.full((count, 3), 0.5) if points.colors is None else points.colors.detach().float()
    sh = torch.zeros(count, (degree + 1) ** 2, 3)
    sh[:, 0] = (colors - 0.5) / Y0
    return Splats(positions, width, turn, torch.full((count,), opacity), sh)


def spacing(positions: Tensor) -> Tensor:
    """[N] mean distance of each point to its three nearest neighbours; 0.1 where there is only one point."""
    if len(positions) < 2:
        return torch.full((len(positions),), 0.1)
    places = positions.cpu().numpy()
    apart, _ = cKDTree(places).query(places, k=min(_NEIGHBOURS + 1, len(places)))
    return torch.from_numpy(apart[:, 1:].mean(1)).float()


def turn_to(normals: Tensor) -> Tensor:
    """[N, 4] quaternions (w, x, y, z) that turn +z to unit ``normals`` [N, 3] by the shortest way."""
    x, y, z = normals.unbind(-1)
    half = torch.stack([1 + z, -y, x, torch.zeros_like(z)], -1)
    # Straight down there is no shortest way: half a turn round x.
    down = half.new_tensor([0.0, 1.0, 0.0, 0.0])
    return torch.where(half.norm(dim=-1, keepdim=True) > 1e-4, F.normalize(half, dim=-1, eps=1e-9), down)


def with_degree(sh: Tensor, degree: int) -> Tensor:
    """Coefficients [N, K, 3] cut to a degree, or filled up with zeros."""
    wanted = (degree + 1) ** 2
    return F.pad(sh[:, :wanted], (0, 0, 0, max(0, wanted - sh.shape[1])))
