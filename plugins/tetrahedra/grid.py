"""A conforming tetrahedral grid of a cube: the body-centred cubic lattice, never written down as a list.

Corners and centres of R^3 cubic cells are its vertices. The two centres beside a cell face and each of the face's four
edges span a tetrahedron; all are congruent, their dihedral angles 60 or 90 degrees, the best that one shape can fill
space with (Senechal 1981). At the cube's sides a face's own midpoint stands for the centre that would lie outside,
which halves the tetrahedron, so that the grid fills the cube and nothing else. Which tetrahedra a surface crosses
follows from the signs by arithmetic on indices: a grid of 128 costs what its 4.2 million vertices cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

AXES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))  # a face's normal and its two sides, right-handed
RING = ((0, 0), (1, 0), (1, 1), (0, 1))  # a face's corners, counter-clockwise round the normal


@dataclass(frozen=True)
class Lattice:
    """The grid of ``cells``^3 cells over [-bound, bound]^3.

    Vertices are numbered corners first ((R + 1)^3, x slowest), then centres (R^3), then the 6 R^2 midpoints of the
    faces at the cube's sides, which carry no values of their own: they count as outside.
    """

    cells: int
    bound: float

    @property
    def size(self) -> float:
        """Side of a cell, world units."""
        return 2 * self.bound / self.cells

    @property
    def corners(self) -> int:
        """How many vertices are corners."""
        return (self.cells + 1) ** 3

    @property
    def vertices(self) -> int:
        """How many vertices carry values: corners and centres."""
        return self.corners + self.cells**3

    def all_positions(self, device: torch.device | str = "cpu") -> Tensor:
        """[V, 3] of the vertices that carry values, world units."""
        return self.positions(torch.arange(self.vertices, device=device))

    def positions(self, index: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """[N, 3] world positions of vertices by number [N], midpoints too."""
        r = self.cells
        corner, centre = index < self.corners, index < self.vertices
        low = torch.where(corner, index, torch.where(centre, index - self.corners, 0))
        side = torch.where(corner, r + 1, r)
        place = torch.stack([low // (side * side), low // side % side, low % side], -1).to(dtype)
        place = torch.where(corner[:, None], place, place + 0.5)
        if not bool(centre.all()):
            place = torch.where(centre[:, None], place, self._midpoints(index - self.vertices, dtype))
        return place * self.size - self.bound

    def _midpoints(self, number: Tensor, dtype: torch.dtype) -> Tensor:
        """[N, 3] places in cells of the midpoints; ``number`` counts axis, then side, then row and column."""
        r = self.cells
        number = number.clamp(min=0)
        which, rest = number // (r * r), number % (r * r)
        axis, far = which // 2, which % 2
        place = torch.zeros(len(number), 3, dtype=dtype, device=number.device)
        for normal, u, v in AXES:
            mine = axis == normal
            place[mine, normal] = (far[mine] * r).to(dtype)
            place[mine, u] = (rest[mine] // r).to(dtype) + 0.5
            place[mine, v] = (rest[mine] % r).to(dtype) + 0.5
        return place

    def on_border(self, index: Tensor) -> Tensor:
        """[N] bool, whether vertices lie on the cube's sides; these are outside whatever their value."""
        side = self.cells + 1
        i, j, k = index // (side * side), index // side % side, index % side
        edge = self.cells
        out = (i == 0) | (i == edge) | (j == 0) | (j == edge) | (k == 0) | (k == edge)
        return (out & (index < self.corners)) | (index >= self.vertices)

    def crossed(self, inside: Tensor) -> Tensor:
        """[T, 4] the tetrahedra whose vertices are not all on one side, positively oriented.

        Args:
            inside: [V] bool of the vertices that carry values; corners on the border count as outside.
        """
        r = self.cells
        corner = inside[: self.corners].view(r + 1, r + 1, r + 1).clone()
        for axis in range(3):
            corner.select(axis, 0).fill_(False)
            corner.select(axis, r).fill_(False)
        centre = inside[self.corners : self.vertices].view(r, r, r)
        return torch.cat([self._at_faces(self._mixed(corner, centre, axis), axis) for axis in range(3)])

    def tetrahedra(self) -> Tensor:
        """[T, 4] every tetrahedron, 12 R^3 + 12 R^2 of them: for checks, and for other programs."""
        r = self.cells
        return torch.cat([self._at_faces(torch.ones(r + 1, r, r, dtype=torch.bool), axis) for axis in range(3)])

    def _mixed(self, corner: Tensor, centre: Tensor, axis: int) -> Tensor:
        """[R + 1, R, R] bool, whether a face's tetrahedra may be crossed: along the normal, then its two sides."""
        order = AXES[axis]
        corner, centre = corner.permute(order), centre.permute(order)
        outside = torch.zeros_like(centre[:1])
        below, above = torch.cat([outside, centre]), torch.cat([centre, outside])
        ring = [corner[:, du or None : None if du else -1, dv or None : None if dv else -1] for du, dv in RING]
        some, every = below | above, below & above
        for part in ring:
            some, every = some | part, every & part
        return some & ~every

    def _at_faces(self, faces: Tensor, axis: int) -> Tensor:
        """[4 F, 4] the tetrahedra round the faces that are set in [R + 1, R, R]; some may lie on one side."""
        r = self.cells
        normal, u, v = AXES[axis]
        p, i, j = faces.nonzero().unbind(1)
        place = torch.empty(len(p), 3, dtype=torch.int64, device=faces.device)

        def corner(du: int, dv: int) -> Tensor:
            place[:, normal], place[:, u], place[:, v] = p, i + du, j + dv
            return (place[:, 0] * (r + 1) + place[:, 1]) * (r + 1) + place[:, 2]

        def centre(layer: Tensor) -> Tensor:
            place[:, normal], place[:, u], place[:, v] = layer.clamp(0, r - 1), i, j
            number = self.corners + (place[:, 0] * r + place[:, 1]) * r + place[:, 2]
            far = (layer >= r).long()
            middle = self.vertices + ((2 * normal + far) * r + i) * r + j
            return torch.where((layer < 0) | (layer >= r), middle, number)

        ring, low, high = [corner(*c) for c in RING], centre(p - 1), centre(p)
        tets = [torch.stack([low, high, ring[k], ring[(k + 1) % 4]], 1) for k in range(4)]
        return torch.stack(tets, 1).view(-1, 4)
