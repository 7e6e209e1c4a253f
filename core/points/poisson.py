"""The surface of oriented points: a differentiable Poisson solver (Peng et al. 2021, "Shape As Points")."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import UserError
from core.meshing.surface import triangulate
from core.types import Mesh


def _spread(places: Tensor, values: Tensor, resolution: int) -> Tensor:
    """[C, R, R, R] values [N, C] shared among the eight grid points round ``places`` [N, 3] in cells; periodic."""
    low = places.detach().floor()
    out = values.new_zeros(resolution**3, values.shape[1])
    for corner in range(8):
        bits = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=places.device)
        share = (1 - (places - low - bits).abs()).prod(-1, keepdim=True)
        x, y, z = ((low.long() + bits) % resolution).unbind(-1)
        out = out.index_add(0, (x * resolution + y) * resolution + z, share * values)
    return out.T.reshape(-1, resolution, resolution, resolution)


def read(grid: Tensor, points: Tensor, bound: float) -> Tensor:
    """[N] trilinear values of a grid [R, R, R] at ``points`` [N, 3] in world units."""
    step = 2 * bound / grid.shape[0]
    place = (points + bound) / step * (2 / (grid.shape[0] - 1)) - 1
    found = F.grid_sample(grid[None, None], place.flip(-1)[None, :, None, None], align_corners=True)
    return found[0, 0, :, 0, 0]


def indicator(points: Tensor, normals: Tensor, bound: float, resolution: int = 64, sigma: float = 2.0) -> Tensor:
    """[R, R, R] a function whose zero set is the surface, negative inside; differentiable in points and normals.

    The solution of ``laplace chi = div V`` by Fourier series over the cube from -bound to bound, V the normals smoothed
    by a Gaussian of ``sigma`` cells; shifted to 0 on average at the points and scaled to -0.5 deep inside.

    Args:
        points: [N, 3] within the cube, world units.  normals: [N, 3] unit, outwards.

    Raises:
        UserError: fewer than four points, or numbers that are not finite.
    """
    if len(points) < 4 or not bool(torch.isfinite(points).all() and torch.isfinite(normals).all()):
        raise UserError("a surface needs at least four points, all of them and their normals finite")
    edge = bound * (1 - 2 / resolution)
    inside = points.clamp(-edge, edge)
    field = _spread((inside + bound) * (resolution / (2 * bound)), normals, resolution)
    axis = torch.fft.fftfreq(resolution, 1 / resolution, device=points.device)
    last = torch.fft.rfftfreq(resolution, 1 / resolution, device=points.device)
    u = torch.stack(torch.meshgrid(axis, axis, last, indexing="ij")).to(points)
    square = u.square().sum(0)
    smooth = torch.exp(-2 * (math.pi * sigma / resolution) ** 2 * square)
    spectrum = torch.fft.rfftn(field, dim=(1, 2, 3))
    solved = -1j * (u * spectrum).sum(0) * smooth / (2 * math.pi * square).clamp(min=1e-9)
    solved = torch.where(square > 0, solved, torch.zeros_like(solved))
    chi = torch.fft.irfftn(solved, s=(resolution,) * 3)
    chi = chi - read(chi, inside, bound).mean()
    return chi * (0.5 / chi.detach()[0, 0, 0].abs().clamp(min=1e-9))


def poisson_mesh(points: Tensor, normals: Tensor, bound: float, resolution: int = 64, sigma: float = 2.0) -> Mesh:
    """The zero set of :func:`indicator` as a closed mesh, its vertices differentiable in points and normals.

    A vertex moves against the function's slope as the function changes; which triangles there are does not.
    """
    chi = indicator(points, normals, bound, resolution, sigma)
    values = -chi.detach().cpu().float().numpy()
    found, faces = triangulate(values, 0.0, float(values.min()), float(values.max()))
    step = 2 * bound / resolution
    vertices = torch.from_numpy(found.astype(np.float32)).to(points) * step - bound
    if torch.is_grad_enabled() and chi.requires_grad and len(vertices):
        slope = torch.stack([read(s, vertices, bound) for s in torch.gradient(chi.detach(), spacing=step)], -1)
        change = read(chi, vertices, bound)
        push = slope / slope.square().sum(-1, keepdim=True).clamp(min=1e-6)
        vertices = vertices - push * (change - change.detach())[:, None]
    return Mesh(vertices, torch.from_numpy(faces).to(points.device))


def estimated_normals(points: Tensor, neighbours: int = 12) -> Tensor:
    """[N, 3] normals of points [N, 3]: of the plane through the neighbours, turned to agree along a spanning tree that
    starts at the outermost point (Hoppe et al. 1992)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
    from scipy.spatial import cKDTree

    at = points.detach().cpu().double().numpy()
    count = min(neighbours, len(at))
    _, near = cKDTree(at).query(at, count)
    offsets = at[near] - at[near].mean(1, keepdims=True)
    normals = np.linalg.eigh(offsets.transpose(0, 2, 1) @ offsets)[1][:, :, 0].copy()
    i, j = np.repeat(np.arange(len(at)), count), near.reshape(-1)
    differ = 1.0 + 1e-3 - np.abs((normals[i] * normals[j]).sum(-1))
    tree = minimum_spanning_tree(coo_matrix((differ, (i, j)), (len(at), len(at))).tocsr())
    outer = at - at.mean(0)
    left = np.ones(len(at), bool)
    while left.any():  # one tree for each piece of the neighbourhoods' graph
        start = int(np.where(left, np.linalg.norm(outer, axis=1), -1).argmax())
        order, parent = breadth_first_order(tree, start, directed=False)
        normals[start] *= 1 if normals[start] @ outer[start] >= 0 else -1
        for k in order[1:]:
            normals[k] *= 1 if normals[k] @ normals[parent[k]] >= 0 else -1
        left[order] = False
    return torch.from_numpy(normals).to(points)
