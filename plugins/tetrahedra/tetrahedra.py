"""Geometry ``tetrahedra``: a signed distance and an offset at each vertex of a tetrahedral grid.

DMTet (Shen et al. 2021, "Deep Marching Tetrahedra"), in the explicit form that nvdiffrec (Munkberg et al. 2022) and
Magic3D optimise: the surface is found by marching tetrahedra, whose vertices are differentiable in both. Colours come
from a hash encoding at the surface (Müller et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from core.contracts import Context, Geometry, Step
from core.errors import UserError
from core.fields import HashField, copies, feature_error
from core.meshing.distance import banded_distance
from core.meshing.sampling import sample_surface
from core.meshing.signals import surface_signal
from core.meshing.start import ellipsoid_distance, load_mesh, sphere_distance
from core.meshing.surface import extract, overrides
from core.meshing.tetrahedra import cross, triangulate
from core.types import Mesh, Render
from plugins.tetrahedra.grid import RING, Lattice


class Tetrahedra(HashField):
    """Distances [V] at the vertices of the grid, world units, and offsets ``offset size tanh(shift)`` of these.

    Offsets of at most a fifth of a cell along each axis can turn no tetrahedron inside out: its heights are 0.707 of a
    cell.
    """

    class Config(HashField.Config):
        resolution: int = Field(64, ge=4, le=256)
        """Cells along a side of the scene's cube; the grid has a vertex at each cell's corners and centre."""
        offset: float = Field(0.2, ge=0, le=0.2)
        """How far a vertex may move along each axis, as a share of a cell."""
        start: Literal["sphere", "ellipsoid", "mesh"] = "sphere"
        """The first shape."""
        radius: float = Field(0.5, gt=0)
        """Of the sphere; of the ball that holds the mesh. World units."""
        radii: tuple[float, float, float] = (0.5, 0.4, 0.6)
        """Of the ellipsoid, along x (front), y and z (up)."""
        file: str = ""
        """The mesh file to start from."""
        band: float = Field(0.0, ge=0)
        """Cells at which the first shape's distances are cut off, so that a surface moves as fast where the first shape
        was thick; 0 keeps them."""
        fixed: bool = False
        """Keep the shape and learn its colours only."""
        sdf_lr: float = Field(0.1, gt=0)
        """Learning rate of the distances as a share of the stage's."""
        offset_lr: float = Field(1.0, gt=0)
        """Learning rate of the offsets as a share of the stage's."""

        @field_validator("radii")
        @classmethod
        def _axes(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
            if min(value) <= 0:
                raise ValueError(f"expected three radii above 0, found {list(value)}")
            return value

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context, "tetrahedra")
        self.lattice = Lattice(options.resolution, context.bound)
        first = self._first().float()
        if options.band:
            first = first.clamp(-options.band * self.lattice.size, options.band * self.lattice.size)
        self.distances = nn.Parameter(first, requires_grad=not options.fixed)
        self.shift = nn.Parameter(torch.zeros(len(first), 3), requires_grad=not options.fixed)
        self._topology: tuple[Tensor, Tensor, Tensor] | None = None

    def _first(self) -> Tensor:
        o, points = self.options, self.lattice.all_positions()
        if o.start == "mesh":
            if not o.file:
                raise UserError("geometry.start is 'mesh', so geometry.file must name one")
            return banded_distance(points, load_mesh(o.file, o.radius), 3 * self.lattice.size)
        return ellipsoid_distance(points, o.radii) if o.start == "ellipsoid" else sphere_distance(points, o.radius)

    def param_groups(self) -> list[dict[str, Any]]:
        o, colours = self.options, super().param_groups()
        if o.fixed:
            return colours
        shape = [{"params": [self.distances], "lr_scale": o.sdf_lr}, {"params": [self.shift], "lr_scale": o.offset_lr}]
        return [*shape, *colours]

    def _values(self, index: Tensor) -> Tensor:
        """[N] distances of vertices by number; at the cube's sides never below a hundredth of a cell, so that the
        surface is closed."""
        values = self.distances[index.clamp(max=self.lattice.vertices - 1)]
        middle = torch.where(index < self.lattice.vertices, values, 0.5 * self.lattice.size)
        return torch.where(self.lattice.on_border(index), middle.clamp(min=0.01 * self.lattice.size), middle)

    def _places(self, index: Tensor) -> Tensor:
        """[N, 3] positions of vertices by number; those at the cube's sides stay where they are."""
        fixed = self.lattice.positions(index, self.shift.dtype)
        moved = self.options.offset * self.lattice.size * torch.tanh(self.shift[index.clamp(max=len(self.shift) - 1)])
        return fixed + torch.where(self.lattice.on_border(index)[:, None], 0.0, moved)

    @torch.no_grad()
    def _cut(self) -> tuple[Tensor, Tensor]:
        """Crossed edges [E, 2] and faces [F, 3]; kept for as long as no distance changes its sign."""
        inside = self.distances < 0
        known = self._topology
        if known is None or known[0].shape != inside.shape or not torch.equal(known[0], inside):
            tets = self.lattice.crossed(inside)
            signs = inside[tets.clamp(max=len(inside) - 1)] & ~self.lattice.on_border(tets.view(-1)).view(-1, 4)
            edges, faces = triangulate(signs, tets, self.lattice.vertices + 6 * self.lattice.cells**2)
            self._topology = known = inside, edges, faces
        return known[1], known[2]

    def surface(self) -> Mesh:
        edges, faces = self._cut()
        if not len(faces):
            raise UserError(
                "the surface is empty: no tetrahedron has vertices on both sides. A lower learning rate or sdf_lr, or "
                "another start, keeps the shape from vanishing"
            )
        return self._between(edges, faces)

    def _between(self, edges: Tensor, faces: Tensor) -> Mesh:
        first, last = edges.unbind(1)
        vertices = cross(self._places(first), self._places(last), self._values(first), self._values(last))
        return Mesh(vertices, faces)

    def mesh(self, resolution: int) -> Mesh:
        """The grid's own surface, whatever ``resolution``; empty where it has none."""
        with torch.no_grad():
            made = self._between(*self._cut())
        return Mesh(made.vertices.detach().float(), made.faces)

    def sdf(self, points: Tensor) -> Tensor:
        """[N] by interpolation within the cell: the centre's value blends with those of the corners as in the grid's
        tetrahedra, offsets left aside; beyond the cube it grows with the distance from it."""
        bound, r = self.context.bound, self.lattice.cells
        inner = points.clamp(-bound, bound)
        place = (inner + bound) / self.lattice.size
        cell = place.floor().clamp(0, r - 1)
        within = place - cell
        axis = (within - 0.5).abs().argmax(-1)
        ahead = (within.gather(1, axis[:, None])[:, 0] >= 0.5).long()
        value = self._in_tetrahedron(cell.long(), within, axis, ahead)
        return value + (points - inner).norm(dim=-1)

    def _in_tetrahedron(self, cell: Tensor, within: Tensor, axis: Tensor, ahead: Tensor) -> Tensor:
        """Barycentric interpolation in the tetrahedron of a cell's face (``axis``, ``ahead``) and one of its edges."""
        r, lattice = self.lattice.cells, self.lattice
        side = axis.new_tensor([[1, 2], [2, 0], [0, 1]])[axis]
        local = within - 0.5
        depth = 0.5 - local.gather(1, axis[:, None])[:, 0].abs()  # from the face, in cells
        u, v = local.gather(1, side).unbind(1)
        steep = u.abs() >= v.abs()
        # The edge of the face at which the larger of the two points: its two ends, as corner offsets along the sides.
        major, minor = torch.where(steep, u, v), torch.where(steep, v, u)
        up = (major >= 0).long()
        ends = []
        for end in (0, 1):
            corner = torch.zeros_like(cell)
            corner.scatter_(1, axis[:, None], ahead[:, None])
            first = torch.where(steep, up, end)
            second = torch.where(steep, end, up)
            corner.scatter_(1, side, torch.stack([first, second], 1))
            place = cell + corner
            ends.append((place[:, 0] * (r + 1) + place[:, 1]) * (r + 1) + place[:, 2])
        own = lattice.corners + (cell[:, 0] * r + cell[:, 1]) * r + cell[:, 2]
        beyond = cell.scatter_add(1, axis[:, None], 2 * ahead[:, None] - 1)
        layer = beyond.gather(1, axis[:, None])[:, 0]
        other = lattice.corners + (beyond[:, 0] * r + beyond[:, 1]) * r + beyond[:, 2]
        border = (layer < 0) | (layer >= r)
        other = torch.where(border, own, other)
        # On the edge major = 1/2; towards the axis between the centres both corners lose weight alike.
        both = 2 * major.abs()
        right = major.abs() + minor
        far = torch.where(border, 2.0, 1.0) * (0.5 - depth - major.abs())
        values = [self._values(index) for index in (own, other, *ends)]
        if bool(border.any()):
            values[1] = torch.where(border, self._face_mean(cell, axis, ahead, side), values[1])
        weights = [1 - far - both, far, both - right, right]
        return torch.stack([w * x for w, x in zip(weights, values, strict=True)]).sum(0)

    def _face_mean(self, cell: Tensor, axis: Tensor, ahead: Tensor, side: Tensor) -> Tensor:
        """[N] mean of the four corners of a cell's face: what its midpoint has at the cube's sides."""
        r, total = self.lattice.cells, torch.zeros_like(cell[:, 0], dtype=self.distances.dtype)
        for ring in RING:
            corner = torch.zeros_like(cell)
            corner.scatter_(1, axis[:, None], ahead[:, None])
            corner.scatter_(1, side, cell.new_tensor(ring).expand(len(cell), 2))
            place = cell + corner
            total = total + self._values((place[:, 0] * (r + 1) + place[:, 1]) * (r + 1) + place[:, 2])
        return total / 4

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        return self.raw(points)[:, 1:]

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        if signal == "sdf-edges":
            edges, _ = self._cut()
            return self._values(edges.view(-1)).view(-1, 2)
        if signal in ("face-normals", "umbrella"):
            return surface_signal(self._between(*self._cut()), signal)
        return super().extra(signal, render, step)

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another shape: a copy, its signed distance, or the distance to its surface (a density's level is
        chosen); and its features by a fit near the surface. ``step`` is called with the index of each fitting step.

        Raises:
            UserError: the other one has no surface.
        """
        if copies(self, other, "resolution", "offset"):
            return
        self._topology = None
        with torch.no_grad():
            self.distances.copy_(self._distance_of(other).to(self.distances))
            self.shift.zero_()
        if not len(self._cut()[1]):
            raise UserError("there is nothing to start from: the earlier stage's shape is smaller than a tetrahedron")
        if overrides(other, "field", "features"):
            self._take_features(other, step)

    def _distance_of(self, other: Geometry) -> Tensor:
        points = self.lattice.all_positions(self.distances.device)
        if overrides(other, "sdf"):
            return torch.cat([other.sdf(part) for part in points.split(1 << 17)])
        if not overrides(other, "field", "density", "mesh"):
            raise UserError(f"there is nothing to start from: {type(other).__name__} has no shape that can be read")
        found = extract(other, self.context.bound, max(64, self.options.resolution + 1))
        if found is None:
            raise UserError("there is nothing to start from: the earlier stage's surface is empty")
        mesh = Mesh(torch.from_numpy(found.vertices.copy()), torch.from_numpy(found.faces.copy()))
        return banded_distance(points.cpu(), mesh, 3 * self.lattice.size)

    def _take_features(self, other: Geometry, step: Callable[[int], None] | None) -> None:
        """Fit the features where they will be seen: at points of the surface and round it."""
        generator = self.context.generator("tetrahedra-init")
        made = self.mesh(0)
        optimizer = torch.optim.Adam([{"params": g["params"]} for g in HashField.param_groups(self)], lr=0.01)
        for index in range(100):
            points = sample_surface(made, 2048, generator).positions
            points = points + torch.randn(points.shape, generator=generator).to(points) * 0.5 * self.lattice.size
            with torch.no_grad():
                wanted = other.features(points)
            with torch.enable_grad():
                every = torch.ones(len(points), dtype=torch.bool, device=points.device)
                apart = feature_error(self.features(points), wanted, every)
                optimizer.zero_grad()
                apart.backward()
            optimizer.step()
            if step is not None:
                step(index)
        self.zero_grad(set_to_none=True)
