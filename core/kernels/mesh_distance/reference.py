"""Closest faces and winding numbers by looking at every face: the reference, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PAIRS = 1 << 20  # points times faces looked at together


def closest_face(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`core.kernels.mesh_distance.closest_face`."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    index, where = [], []
    for part in points.split(max(1, _PAIRS // len(faces))):
        bary = _nearest_on_triangle(part[:, None], a[None], b[None], c[None])
        nearest = bary[..., :1] * a + bary[..., 1:2] * b + bary[..., 2:] * c
        best = (nearest - part[:, None]).square().sum(-1).argmin(1)
        index.append(best)
        where.append(bary[torch.arange(len(part), device=best.device), best])
    if not index:
        return faces.new_zeros(0), points.new_zeros(0, 3)
    return torch.cat(index), torch.cat(where)


def _nearest_on_triangle(p: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Barycentric coordinates [..., 3]: the foot of the perpendicular where it falls inside, else the best of the three
    edges."""
    ab, ac, ap = b - a, c - a, p - a
    dab, dac, dbc = (x.square().sum(-1) for x in (ab, ac, c - b))
    mixed = (ab * ac).sum(-1)
    pab, pac = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = dab * dac - mixed.square()
    flat = area <= 1e-12 * dab * dac
    safe = torch.where(flat, 1.0, area)
    v = (dac * pab - mixed * pac) / safe
    w = (dab * pac - mixed * pab) / safe
    inside = (v >= 0) & (w >= 0) & (v + w <= 1) & ~flat
    face = torch.stack([(1 - v - w).clamp(min=0), v, w], -1)
    tiny = torch.finfo(p.dtype).tiny
    s, t = (pab / dab.clamp(min=tiny)).clamp(0, 1), (pac / dac.clamp(min=tiny)).clamp(0, 1)
    u = (((p - b) * (c - b)).sum(-1) / dbc.clamp(min=tiny)).clamp(0, 1)
    zero = torch.zeros_like(s)
    edges = [torch.stack([1 - s, s, zero], -1), torch.stack([1 - t, zero, t], -1), torch.stack([zero, 1 - u, u], -1)]
    squared = [(e[..., :1] * a + e[..., 1:2] * b + e[..., 2:] * c - p).square().sum(-1) for e in edges]
    best = torch.stack(squared, -1).argmin(-1)[..., None, None].expand(*s.shape, 1, 3)
    edge = torch.stack(edges, -2).gather(-2, best)[..., 0, :]
    return torch.where(inside[..., None], face, edge)


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """See :func:`core.kernels.mesh_distance.winding_number`; solid angles by van Oosterom and Strackee (1983)."""
    corners = vertices[faces]
    parts = [
        solid_angle(part[:, None, None], corners[None]).sum(1) / (4 * math.pi)
        for part in points.split(max(1, _PAIRS // len(faces)))
    ]
    return torch.cat(parts) if parts else points.new_zeros(0)


def solid_angle(points: Tensor, corners: Tensor) -> Tensor:
    """[...] signed solid angles of triangles ``corners`` [..., 3, 3] seen from ``points`` [..., 1, 3]; positive from
    behind (where a closed outward mesh's inside is)."""
    a, b, c = (corners - points).unbind(-2)
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    top = (a * torch.linalg.cross(b, c, dim=-1)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return 2 * torch.atan2(top, below)
