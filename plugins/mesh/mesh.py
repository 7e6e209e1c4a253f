"""Geometry ``mesh``: a mesh of the user's (or of an earlier stage) whose texture is learned.

The texture is a hash-encoded field of the position (Müller et al. 2022), which knows no seams, or a picture in the
mesh's own UVs. The shape stays as it is unless ``deform`` is set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import trimesh
from pydantic import Field
from torch import Tensor, nn

from core.contracts import Context, Geometry, Scene, Step
from core.errors import UserError
from core.fields import HashField
from core.meshing.files import centred, read_mesh
from core.meshing.normals import vertex_normals
from core.meshing.signals import surface_signal
from core.meshing.surface import Surface
from core.meshing.takeover import Painted, surface_of
from core.meshing.unwrap import unwrap
from core.types import Mesh, Render
from plugins.mesh.texture import FieldTexture, ImageTexture

log = logging.getLogger("maquette")


class MeshGeometry(Geometry):
    """Vertices in one place are one: UVs may split a corner, ``deform`` moves its parts together."""

    class Config(HashField.Config):
        path: str = ""
        """GLB, OBJ, PLY … to work on; without one a ball, until an earlier stage's surface takes its place."""
        normalize: bool = True
        """Centre it and scale its farthest vertex to ``radius``; else it is taken as it lies in the scene."""
        radius: float = Field(0.9, gt=0)
        """Reach of the normalised mesh, world units."""
        up: Literal["auto", "y", "z"] = "auto"
        """The file's upward axis; auto is y for GLB, GLTF and OBJ (front on +z), else z (front on +x)."""
        texture: Literal["field", "image"] = "field"
        """A field of the position, or a picture in the mesh's UVs (made where it has none)."""
        texture_size: int = Field(512, ge=16, le=8192)
        """Side of the picture in pixels."""
        own_colors: bool = False
        """Start from the file's texture or vertex colours instead of grey."""
        deform: bool = False
        """Move the vertices too; losses ``laplacian`` and ``normal-consistency`` keep the surface in shape."""
        deform_lr: float = Field(0.05, gt=0)
        """Learning rate of the vertices as a share of the stage's."""
        faces: int = Field(10_000, ge=100)
        """At most about this many triangles of an earlier stage's surface."""
        resolution: int = Field(96, ge=8, le=1024)
        """Grid points along a side, where an earlier stage is a field."""

    positions: Tensor  # [P, 3]
    corners: Tensor  # [V] int64: which position a vertex has
    triangles: Tensor  # [F, 3] int64
    uv: Tensor  # [V, 2], or [0, 2]

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        for name, kind in (("positions", torch.float32), ("corners", torch.int64), ("triangles", torch.int64)):
            self.register_buffer(name, torch.zeros(0, dtype=kind))
        self.register_buffer("uv", torch.zeros(0, 2))
        mesh = self._read()
        self._place(mesh)
        self.texture = (FieldTexture if options.texture == "field" else ImageTexture)(options, context)
        self.shift = nn.Parameter(torch.zeros_like(self.positions)) if options.deform else None
        if options.own_colors:
            self._own_colors(mesh)

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        """UVs where a picture is learned, what the surface's losses look at where the surface moves."""
        uv = ["uv"] if options.texture == "image" else []
        return [], ["mesh", "features", *uv, *(["face-normals", "umbrella"] if options.deform else [])]

    def _read(self) -> Mesh:
        o = self.options
        if not o.path:
            ball = trimesh.creation.icosphere(4, o.radius)
            return Mesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())
        mesh = read_mesh(o.path, "geometry.path", o.up)
        if o.normalize:
            return centred(mesh, o.radius)
        if float(mesh.vertices[mesh.faces.unique()].abs().max()) > self.context.bound:
            log.warning("%s reaches beyond the scene's cube; geometry.normalize=true fits it in", o.path)
        return mesh

    def _place(self, mesh: Mesh) -> None:
        """Take over triangles; UVs are made where a picture needs them."""
        mesh = self._charted(mesh)
        used, faces = mesh.faces.unique(return_inverse=True)
        vertices = mesh.vertices[used]
        positions, corners = torch.unique(vertices, dim=0, return_inverse=True)
        device = self.positions.device
        self.positions, self.corners, self.triangles = (t.to(device) for t in (positions, corners, faces))
        self.uv = (torch.zeros(0, 2) if mesh.uv is None else mesh.uv[used]).to(device)

    def _charted(self, mesh: Mesh) -> Mesh:
        if self.options.texture == "field" or mesh.uv is not None:
            return mesh
        log.warning("%s has no UVs; it is unwrapped", self.options.path or "the mesh")
        arrays = mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy()
        flat = unwrap(*arrays, self.options.texture_size, 4, 181.0)
        return Mesh(torch.from_numpy(flat.vertices), torch.from_numpy(flat.faces), uv=torch.from_numpy(flat.uv))

    def param_groups(self) -> list[dict[str, Any]]:
        moved = [] if self.shift is None else [{"params": [self.shift], "lr_scale": self.options.deform_lr}]
        return [*self.texture.param_groups(), *moved]

    def update(self, step: Step) -> None:
        self.texture.update(step)

    def _moved(self) -> Tensor:
        return self.positions if self.shift is None else self.positions + self.shift

    def surface(self) -> Mesh:
        moved = self._moved()
        normals = vertex_normals(moved, self.corners[self.triangles])
        uv = self.uv if len(self.uv) else None
        return Mesh(moved[self.corners], self.triangles, normals=normals[self.corners], uv=uv)

    def mesh(self, resolution: int) -> Mesh:
        """The mesh itself with its own UVs, whatever ``resolution``; exporters paint it."""
        with torch.no_grad():
            made = self.surface()
        return Mesh(made.vertices.detach().clone(), made.faces, normals=made.normals, uv=made.uv)

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        return self.texture(points, uv)

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        return surface_signal(Mesh(self._moved(), self.corners[self.triangles]), signal)

    def _own_colors(self, mesh: Mesh) -> None:
        if mesh.colors is None and mesh.texture is None:
            name = self.options.path or "the ball"
            log.warning("%s has neither a texture that can be read nor colours; it starts from grey", name)
            return
        self.texture.take(self.mesh(0), Painted.of(mesh))

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over the surface of any geometry, without its colours.

        Raises:
            UserError: it has none.
        """
        self._take(surface_of(other, self.options.resolution, self.options.faces))

    def start_from(self, scene: Scene) -> None:
        """Take over the surface and the colours of an earlier stage."""
        found = surface_of(scene.geometry, self.options.resolution, self.options.faces)
        self._take(found)
        self.texture.take(self.mesh(0), Painted.by(scene, found))

    def _take(self, found: Surface) -> None:
        uv = None if found.source is None else found.source.uv
        vertices, faces = torch.from_numpy(np.array(found.vertices)), torch.from_numpy(np.array(found.faces))
        self._place(Mesh(vertices, faces, uv=None if uv is None else uv.detach().cpu()))
        if self.shift is not None:
            self.shift = nn.Parameter(torch.zeros_like(self.positions))

    def _make_room(self, state: dict[str, Any], prefix: str) -> None:
        """Buffers of the sizes that the state has: its mesh was an earlier stage's, or a generator's."""
        for name in ("positions", "corners", "triangles", "uv"):
            saved = state.get(prefix + name)
            if saved is not None:
                setattr(self, name, torch.empty_like(saved, device=self.positions.device))
        if self.shift is not None:
            self.shift = nn.Parameter(torch.zeros_like(self.positions))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A checkpoint's mesh may be another one than the file's; without a file it is taken as it is.

        Raises:
            UserError: the file has changed since.
        """
        if not self.options.path:
            self._make_room(state, prefix)
        for name in ("positions", "corners", "triangles", "uv"):
            saved = state.get(prefix + name)
            if saved is not None and saved.shape != getattr(self, name).shape:
                raise UserError(
                    f"the checkpoint's mesh has {len(state[prefix + 'triangles'])} faces and geometry.path="
                    f"{self.options.path or '(a ball)'} has {len(self.triangles)}: the file is another one now"
                )
        super()._load_from_state_dict(state, prefix, *rest)
