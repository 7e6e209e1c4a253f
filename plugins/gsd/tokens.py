"""A Gaussian as a row of numbers, and back.

A token holds 16: centre (3), logarithms of the scales (3), the major and the minor axis (6), sRGB (3), logit of the
opacity (1). Axes stand for the rotation, since a quaternion and its negative are the same one (Zhou et al. 2019, "On
the Continuity of Rotation Representations"). In canonical form equal ellipsoids are equal rows: scales fall, the minor
axis points away from the origin, the major one to the upper side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from core.kernels.splatting.projection import rotation_matrices
from core.points.neighbours import farthest_points
from core.spherical_harmonics import Y0
from core.types import Splats

WIDTH = 16
PARTS = (3, 3, 6, 3, 1)
_UPPER = (0.36, 0.48, 0.8)
_FLATNESS, _SIZE, _NEIGHBOURS = 0.3, 0.8, 3
_LOG_SCALES, _LOGITS = (-5.5, -0.5), (-4.0, 4.0)


def axes_of(pair: Tensor) -> Tensor:
    """Rotations [..., 3, 3], columns major, middle, minor axis, from [..., 6] by Gram and Schmidt; the minor axis is
    kept, the major one made to stand on it."""
    major, minor = pair.split(3, -1)
    minor = F.normalize(minor, dim=-1, eps=1e-6)
    major = F.normalize(major - (major * minor).sum(-1, keepdim=True) * minor, dim=-1, eps=1e-6)
    return torch.stack([major, torch.linalg.cross(minor, major), minor], -1)


def quaternions(turn: Tensor) -> Tensor:
    """[N, 4] unit quaternions (w, x, y, z) of rotations [N, 3, 3]; differentiable everywhere.

    Each row has four expressions, of which the one that divides by the most is taken.
    """
    m = turn.flatten(-2).unbind(-1)
    trace = [m[0] + m[4] + m[8], m[0] - m[4] - m[8], m[4] - m[0] - m[8], m[8] - m[0] - m[4]]
    a, b, c = m[7] - m[5], m[2] - m[6], m[3] - m[1]
    d, e, f = m[1] + m[3], m[2] + m[6], m[5] + m[7]
    w, x, y, z = (1 + t for t in trace)
    rows = torch.stack([w, a, b, c, a, x, d, e, b, d, y, f, c, e, f, z], -1).unflatten(-1, (4, 4))
    best = torch.stack(trace, -1).argmax(-1)
    return F.normalize(rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :], dim=-1)


def splats_of(tokens: Tensor) -> Splats:
    """The Gaussians of tokens [N, 16]; scales and opacities are kept in bounds, with a gradient inside of them."""
    means, log_scales, pair, color, logit = tokens.split(PARTS, -1)
    return Splats(
        means, log_scales.clamp(*_LOG_SCALES).exp(), quaternions(axes_of(pair)),
        torch.sigmoid(logit[:, 0].clamp(*_LOGITS)), ((color - 0.5) / Y0)[:, None],
    )  # fmt: skip


@torch.no_grad()
def canonical(tokens: Tensor) -> Tensor:
    """The same ellipsoids [..., 16], axes in order of their scales and with fixed signs."""
    means, log_scales, pair, color, logit = tokens.split(PARTS, -1)
    ordered, order = log_scales.sort(-1, descending=True)
    axes = axes_of(pair).gather(-1, order[..., None, :].expand(*order.shape, 3).clone())
    major, minor = axes[..., 0], axes[..., 2]
    major = major * _sign((major * major.new_tensor(_UPPER)).sum(-1, keepdim=True))
    minor = minor * _sign((minor * means).sum(-1, keepdim=True))
    bounded = [ordered.clamp(*_LOG_SCALES), major, minor, color.clamp(0, 1), logit.clamp(*_LOGITS)]
    return torch.cat([means, *bounded], -1)


def _sign(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0)


@torch.no_grad()
def on_surface(points: Tensor, normals: Tensor, colors: Tensor, count: int, opacity: float = 0.9) -> Tensor:
    """``count`` Gaussians [B, count, 16] spread over surfaces that are given as points [B, N, 3] with normals, sRGB.

    They are as wide as the mean distance to the nearest three and flat along the normal; colours are means over the
    points that are nearest.

    Raises:
        UserError: there are fewer points than Gaussians.
    """
    index = farthest_points(points.transpose(1, 2), count)[..., None].expand(-1, -1, 3)
    at, minor = points.gather(1, index), F.normalize(normals.gather(1, index), dim=-1)
    owner = torch.cdist(points, at).argmin(2)[..., None].expand(-1, -1, 3)
    color = colors.gather(1, index).scatter_reduce(1, owner, colors, "mean")
    apart = torch.cdist(at, at).topk(min(_NEIGHBOURS + 1, count), largest=False).values[..., 1:].mean(-1)
    width = (_SIZE * apart).clamp(min=1e-3).log()[..., None]
    flat = width + points.new_tensor([0.0, 0.0, _FLATNESS]).where(points.new_tensor([0, 0, 1]) > 0, 1.0).log()
    upper = at.new_tensor(_UPPER).expand_as(at)
    logit = torch.full_like(width, opacity).logit()
    tokens = torch.cat([at, flat, upper, minor, color, logit], -1)
    pair = axes_of(tokens[..., 6:12])
    return canonical(torch.cat([at, flat, pair[..., 0], pair[..., 2], color, logit], -1))


def tokens_of(splats: Splats) -> Tensor:
    """The inverse of :func:`splats_of`, in canonical form: [N, 16]."""
    turn = rotation_matrices(splats.rotations)
    logit = splats.opacities.clamp(1e-4, 1 - 1e-4).logit()[:, None]
    color = splats.sh[:, 0] * Y0 + 0.5
    return canonical(torch.cat([splats.means, splats.scales.log(), turn[..., 0], turn[..., 2], color, logit], -1))
