"""Mesh rasterisation in plain PyTorch: every face against every pixel, any device, any float type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PAIRS = 1 << 17  # face-pixel pairs held at once: what fits into a processor's cache
LEAST_AREA = 1e-6  # square pixels
STEPS = 64  # faces looked through between two pixels


def visible(
    vertices: Tensor, faces: Tensor, height: int, width: int, near: float, nearer_of: Callable[..., Any] | None = None
) -> Tensor:
    """[B, H, W] int64: see :func:`core.kernels.mesh_raster.rasterise`; ``nearer_of`` stands for :func:`nearer`."""
    y, x = torch.meshgrid(
        torch.arange(height, device=vertices.device), torch.arange(width, device=vertices.device), indexing="ij"
    )
    pixels = torch.stack([x, y], -1).view(-1, 2).to(vertices) + 0.5
    seen = [_nearest(v, faces, pixels, near, nearer_of or nearer) for v in vertices]
    return torch.stack(seen).view(-1, height, width) if seen else x.new_zeros(0, height, width)


def _nearest(vertices: Tensor, faces: Tensor, pixels: Tensor, near: float, nearer_of: Callable[..., Any]) -> Tensor:
    """[P] the first of the nearest faces at ``pixels`` [P, 2] of one picture."""
    corners = vertices[faces]  # [F, 3, 3]
    best = vertices.new_full((len(pixels),), torch.inf)
    found = torch.full_like(best, -1, dtype=torch.int64)
    ids = drawable(corners).nonzero()[:, 0]
    for part in ids.split(max(1, PAIRS // len(pixels))) if len(ids) else ():
        best, found = nearer_of(corners[part], part, pixels, near, best, found)
    return found


def nearer(
    corners: Tensor, ids: Tensor, pixels: Tensor, near: float, best: Tensor, found: Tensor
) -> tuple[Tensor, Tensor]:
    """The depths ``best`` [P] and faces ``found`` [P] at pixels [P, 2], with faces ``ids`` [f], whose corners are
    [f, 3, 3], taken in."""
    c = corners[:, :, :, None]
    q = c[:, :, :2] - c[:, :, 2:] * pixels.T
    a = _edge_functions(q[:, :, 0], q[:, :, 1], dim=1)
    total = a.sum(1)
    inside = ((a >= 0).all(1) | (a <= 0).all(1)) & (total != 0)
    depth = (a * c[:, :, 2]).sum(1) / torch.where(inside, total, torch.ones_like(total))
    depth = torch.where(inside & (depth >= near), depth, torch.inf)
    least = depth.min(0).values
    first = torch.where(depth == least, ids[:, None], torch.iinfo(ids.dtype).max).min(0).values
    better = least < best
    return torch.where(better, least, best), torch.where(better, first, found)


def _edge_functions(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """The three cross products of corners seen from a pixel; they are to each other as the weights are."""
    x1, y1, x2, y2 = x.roll(-1, dim), y.roll(-1, dim), x.roll(-2, dim), y.roll(-2, dim)
    return x1 * y2 - y1 * x2


def drawable(corners: Tensor) -> Tensor:
    """[F] whether ``corners`` [F, 3, 3] are finite and cover more than nothing on screen."""
    deepest = corners[..., 2].abs().argmax(1)
    order = (deepest[:, None] + torch.arange(3, device=corners.device)) % 3
    p = corners.gather(1, order[..., None].expand_as(corners))
    w = torch.where(p[:, :1, 2] == 0, torch.ones_like(p[:, :1, 2]), p[:, :1, 2])
    q = p[..., :2] - p[..., 2:] * (p[:, :1, :2] / w[..., None])
    area = q[:, 1, 0] * q[:, 2, 1] - q[:, 1, 1] * q[:, 2, 0]  # twice the area, times w1 w2
    return corners.isfinite().all(-1).all(-1) & (area.abs() > 2 * LEAST_AREA * w[:, 0].square())


def weights(vertices: Tensor, faces: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """(bary [B, H, W, 3], depth [B, H, W]) of known faces, differentiable in the vertices as often as asked."""
    b, y, x = (face >= 0).nonzero(as_tuple=True)
    corners = vertices[b[:, None], faces[face[b, y, x]]]  # [K, 3, 3]
    centre = torch.stack([x, y], -1).to(vertices) + 0.5
    q = corners[..., :2] - corners[..., 2:] * centre[:, None]
    a = _edge_functions(q[..., 0], q[..., 1], dim=1)
    share = a / a.sum(1, keepdim=True)
    bary = vertices.new_zeros(*face.shape, 3).index_put((b, y, x), share)
    depth = vertices.new_zeros(face.shape).index_put((b, y, x), (share * corners[..., 2]).sum(1))
    return bary, depth


def interpolate(values: Tensor, faces: Tensor, face: Tensor, bary: Tensor) -> Tensor:
    """[B, H, W, C]: see :func:`core.kernels.mesh_raster.interpolate`."""
    b, y, x = (face >= 0).nonzero(as_tuple=True)
    corner = faces[face[b, y, x]]
    found = values[corner] if values.ndim == 2 else values[b[:, None], corner]
    mixed = (found * bary[b, y, x][..., None]).sum(1)
    return values.new_zeros(*face.shape, values.shape[-1]).index_put((b, y, x), mixed)


def silhouettes(
    vertices: Tensor, faces: Tensor, across: Tensor, face: Tensor, depth: Tensor, near: float
) -> tuple[Tensor, Tensor]:
    """(edges [B, H, W, 2, 2], front [B, H, W, 2]) as :func:`core.kernels.mesh_raster.blending.blend` wants them.

    From the pixel that sees the nearer face the line to its neighbour is followed out of that face, over every edge
    that is no silhouette, until one is or the neighbour's centre is reached.
    """
    edges = torch.full((*face.shape, 2, 2), -1, dtype=torch.int64, device=face.device)
    front = torch.zeros((*face.shape, 2), dtype=torch.int64, device=face.device)
    for axis in (0, 1):
        size = face.shape[2 - axis] - 1
        f0, f1 = face.narrow(2 - axis, 0, size), face.narrow(2 - axis, 1, size)
        d0, d1 = depth.narrow(2 - axis, 0, size), depth.narrow(2 - axis, 1, size)
        b, y, x = (f0 != f1).nonzero(as_tuple=True)
        f0, f1, d0, d1 = f0[b, y, x], f1[b, y, x], d0[b, y, x], d1[b, y, x]
        other = (f0 < 0) | ((f1 >= 0) & (d1 < d0))
        start = torch.stack([x, y], -1) + other[:, None] * torch.eye(2, dtype=torch.int64, device=x.device)[axis]
        found = _follow(vertices, faces, across, b, torch.where(other, f1, f0), start, other, axis, near)
        edges[b, y, x, axis], front[b, y, x, axis] = found, other.long()
    return edges, front


def _follow(
    vertices: Tensor, faces: Tensor, across: Tensor, b: Tensor, face: Tensor, start: Tensor, back: Tensor, axis: int,
    near: float,
) -> Tensor:  # fmt: skip
    """[K, 2] the silhouette's vertices for each pair of pixels, -1 where there is none."""
    found = torch.full((len(b), 2), -1, dtype=torch.int64, device=b.device)
    live = torch.arange(len(b), device=b.device)
    corner_ids = torch.arange(3, device=b.device)
    for _ in range(STEPS):
        if not len(live):
            break
        corner = faces[face]  # [k, 3]
        along, beside, w = _local(vertices, b[live], corner, start[live], axis)
        along = torch.where(back[live, None], -along, along)
        after = beside.roll(-1, 1)
        crosses = (beside > 0) != (after > 0)
        t = beside / torch.where(crosses, beside - after, torch.ones_like(beside))
        at = torch.where(crosses, along + t * (along.roll(-1, 1) - along), -torch.inf)
        leave, k = at.max(1)
        go = crosses.any(1) & (w > near).all(1) & (leave <= 1)
        live, k, corner, face, along, beside = (v[go] for v in (live, k, corner, face, along, beside))
        pick = (k[:, None] + corner_ids) % 3  # the edge's two ends, then the corner opposite
        corner, along, beside = (v.gather(1, pick) for v in (corner, along, beside))
        after_face = across[face, k]
        third = faces[after_face.clamp(min=0)]
        third = torch.where((third != corner[:, :1]) & (third != corner[:, 1:2]), third, -1).max(1).values
        o_along, o_beside, o_w = _local(vertices, b[live], third.clamp(min=0)[:, None], start[live], axis)
        o_along = torch.where(back[live, None], -o_along, o_along)
        mine = _side(along, beside, along[:, 2], beside[:, 2])
        fold = mine * _side(along, beside, o_along[:, 0], o_beside[:, 0]) >= 0
        hidden = (after_face >= 0) & (o_w[:, 0] <= near)
        edge = (after_face < 0) | (fold & ~hidden)
        run, rise = (along[:, 1] - along[:, 0]).abs(), (beside[:, 1] - beside[:, 0]).abs()
        upright = rise >= run if axis == 0 else rise > run
        hit = edge & upright
        found[live[hit]] = corner[hit, :2]
        on = ~edge & ~hidden
        live, face = live[on], after_face[on]
    return found


def _local(vertices: Tensor, b: Tensor, corner: Tensor, start: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Along and beside the line through ``start`` [k, 2] (pixels), and w: [k, n] each for ``corner`` [k, n]."""
    p = vertices[b[:, None], corner]
    w = p[..., 2]
    place = p[..., :2] / torch.where(w == 0, torch.ones_like(w), w)[..., None] - (start.to(p) + 0.5)[:, None]
    return place[..., axis], place[..., 1 - axis], w


def _side(along: Tensor, beside: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """On which side of the edge (columns 0 and 1) a point lies, as a signed area."""
    return (along[:, 1] - along[:, 0]) * (y - beside[:, 0]) - (beside[:, 1] - beside[:, 0]) * (x - along[:, 0])
