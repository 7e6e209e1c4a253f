"""The uniform tetrahedral grid: the A15 (Frank-Kasper) lattice, and its place in a dense cube of numbers.

Eight points repeat every four steps of the integer lattice; their Delaunay tetrahedra have edges of length 2, sqrt 5
and sqrt 6. Every point lies on the integer lattice, so values at vertices are a cube for convolutions, with a mask that
says which of its cells are vertices (about one in eight). At resolution 64 the grid has 30,512 vertices and 159,330
tetrahedra, those that the authors' data are stored on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial import Delaunay
from torch import Tensor

from core.meshing.tetrahedra import EDGES

BASE = ((0, 0, 0), (2, 2, 2), (1, 2, 0), (3, 2, 0), (2, 0, 1), (2, 0, 3), (0, 1, 2), (0, 3, 2))
PERIOD, SHIFT = 4, (0, 0, 2)
MESH_SCALE = 1.1
"""The authors' grid spans so much of their world: an offset is ``deform * deform_scale / MESH_SCALE`` lattice units."""


@dataclass(frozen=True, eq=False)
class TetGrid:
    """The grid of resolution R.

    Attributes:
        resolution: R.
        points: [V, 3] int64 lattice coordinates, 1 .. R - 1.
        tets: [T, 4] int64, positively oriented.
        edges: [E, 2] int64, each once, the lower vertex first.
        border: [V] bool, vertices at the grid's own outside.
    """

    resolution: int
    points: Tensor
    tets: Tensor
    edges: Tensor
    border: Tensor

    def __len__(self) -> int:
        return len(self.points)

    def spacing(self, extent: float) -> float:
        """World units of a lattice unit where the outermost vertices lie at ``extent``."""
        return 2 * extent / (self.resolution - 2)

    def positions(self, extent: float) -> Tensor:
        """[V, 3] world units: the grid reaches from -extent to extent along each axis."""
        return (self.points.float() - self.resolution / 2) * self.spacing(extent)

    @property
    def mask(self) -> Tensor:
        """[R, R, R], 1 in the cells that are vertices."""
        return self.to_cube(torch.ones(len(self), 1))[0]

    def to_cube(self, values: Tensor) -> Tensor:
        """[..., V, C] values at vertices as [..., C, R, R, R], zero elsewhere; cell = lattice coordinate - 1."""
        r = self.resolution
        cube = values.new_zeros(*values.shape[:-2], values.shape[-1], r**3)
        cube[..., self._cells.to(values.device)] = values.mT
        return cube.view(*cube.shape[:-1], r, r, r)

    def from_cube(self, cube: Tensor) -> Tensor:
        """The inverse of :meth:`to_cube`: [..., C, R, R, R] to [..., V, C]."""
        return cube.flatten(-3)[..., self._cells.to(cube.device)].mT

    @property
    def _cells(self) -> Tensor:
        x, y, z = (self.points - 1).unbind(-1)
        return (x * self.resolution + y) * self.resolution + z


@lru_cache(maxsize=4)
def tet_grid(resolution: int) -> TetGrid:
    """The grid of ``resolution``, a multiple of 4."""
    shifted = np.array(BASE) - SHIFT
    cells = np.arange(-1, resolution // PERIOD + 2) * PERIOD
    origins = np.stack(np.meshgrid(cells, cells, cells, indexing="ij"), -1).reshape(-1, 1, 3)
    points = (origins + shifted).reshape(-1, 3)
    points = points[((points >= 0) & (points <= resolution)).all(1)]
    tets = Delaunay(points).simplices
    outside = ((points == 0) | (points == resolution)).any(1)
    corners = points[tets].astype(np.float64)
    volume = np.linalg.det(corners[:, 1:] - corners[:, :1])
    tets, volume = (part[~outside[tets].any(1) & (np.abs(volume) > 1e-6)] for part in (tets, volume))
    tets[volume < 0] = tets[volume < 0][:, [0, 1, 3, 2]]
    used, tets = np.unique(tets, return_inverse=True)
    tets = torch.from_numpy(tets.reshape(-1, 4).astype(np.int64))
    pairs = tets[:, torch.tensor(EDGES)].view(-1, 2).sort(-1).values
    return TetGrid(resolution, torch.from_numpy(points[used].astype(np.int64)), tets, pairs.unique(dim=0), _rim(tets))


def _rim(tets: Tensor) -> Tensor:
    """[V] bool, vertices of triangles that only one tetrahedron has."""
    triangles = tets[:, torch.tensor([(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)])].view(-1, 3).sort(-1).values
    kinds, times = triangles.unique(dim=0, return_counts=True)
    rim = torch.zeros(int(tets.max()) + 1, dtype=torch.bool)
    rim[kinds[times == 1].flatten()] = True
    return rim
