"""Shapes as values of the grid: a sign and an offset per vertex (Liu et al. 2023, section 4.1), from distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import lsqr
from torch import Tensor

from core.meshing.tetrahedra import triangulate
from core.types import Mesh
from plugins.mesh_diffusion.lattice import MESH_SCALE, TetGrid

Distance = Callable[[NDArray[Any]], NDArray[Any]]
F64 = NDArray[np.float64]
LIMIT = 0.99
"""Largest offset along an axis in units of the deformation's scale; the published data are clamped there."""
ROUNDS, DAMPING, STEP = 6, 0.15, 1e-3


@dataclass(frozen=True)
class Space:
    """Where a grid lies in the world: what makes numbers of shapes and shapes of numbers.

    Attributes:
        extent: world coordinate of the outermost vertices.
        deform_scale: an offset of 1 is ``deform_scale / 1.1`` lattice units, as the authors count.
    """

    grid: TetGrid
    extent: float = 0.95
    deform_scale: float = 1.5

    @property
    def reach(self) -> float:
        """World units of an offset of 1."""
        return self.grid.spacing(self.extent) * self.deform_scale / MESH_SCALE

    def fit(self, distance: Distance) -> Tensor:
        """[V, 4] sign (+1 outside, -1 inside) and offsets of a solid; [V, 3] offsets are 0 away from its surface.

        The surface passes through the midpoints of the edges whose ends differ in sign, so offsets move those midpoints
        onto it: Gauss-Newton on the sum of squared distances there plus ``DAMPING``^2 times the squared offsets.
        """
        at = self.grid.positions(self.extent).double().numpy()
        inside = (np.asarray(distance(at)) < 0) & ~self.grid.border.numpy()
        edges = self.grid.edges.numpy()
        edges = edges[inside[edges[:, 0]] != inside[edges[:, 1]]]
        offset, limit = np.zeros_like(at), LIMIT * self.reach
        for _ in range(ROUNDS if len(edges) else 0):
            move = _gauss_newton(distance, at + offset, offset, edges)
            offset = np.clip(offset + move, -limit, limit)
        sign = torch.from_numpy(np.where(inside, -1.0, 1.0))
        return torch.cat([sign[:, None], torch.from_numpy(offset / self.reach)], 1).float()

    def mesh(self, values: Tensor) -> Mesh:
        """The closed surface of values [V, 4]: signs by their sign (the border is outside), offsets clipped to [-1, 1].
        Differentiable in the offsets."""
        grid, device = self.grid, values.device
        inside = (values[:, 0] < 0) & ~grid.border.to(device)
        ends, faces = triangulate(inside[grid.tets.to(device)], grid.tets.to(device), len(grid))
        moved = grid.positions(self.extent).to(device) + values[:, 1:].clamp(-1, 1) * self.reach
        return Mesh(moved[ends].mean(1), faces)

    def errors(self, values: Tensor, distance: Distance) -> Tensor:
        """[E] how far the crossing edges' midpoints lie from a solid's surface, in lattice units."""
        points = self.mesh(values).vertices.detach().double().numpy()
        return torch.from_numpy(np.abs(distance(points))) / self.grid.spacing(self.extent)


def _gauss_newton(distance: Distance, at: F64, offset: F64, edges: NDArray[np.int64]) -> F64:
    """[V, 3] the next move of all vertices at [V, 3]."""
    middle = at[edges].mean(1)
    found, slope = np.asarray(distance(middle)), _slope(distance, middle)
    used, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(-1, 2)
    columns = (3 * ends[:, :, None] + np.arange(3)).reshape(len(edges), 6)
    rows = np.repeat(np.arange(len(edges)), 6)
    filled = np.tile(slope / 2, (1, 2)).reshape(-1)
    matrix = csr_matrix((filled, (rows, columns.reshape(-1))), shape=(len(edges), 3 * len(used)))
    # Damped towards no offset at all, not towards no change.
    wanted = -found + matrix @ offset[used].reshape(-1)
    total = lsqr(matrix, wanted, damp=DAMPING, iter_lim=60)[0].reshape(-1, 3)
    move = np.zeros_like(at)
    move[used] = total - offset[used]
    return move


def _slope(distance: Distance, points: F64) -> F64:
    """[N, 3] gradients by central differences."""
    parts = []
    for axis in np.eye(3) * STEP:
        parts.append((np.asarray(distance(points + axis)) - np.asarray(distance(points - axis))) / (2 * STEP))
    return np.stack(parts, -1)
