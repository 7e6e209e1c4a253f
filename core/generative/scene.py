"""A mesh that a generator made, as a scene: to be looked at, exported, and started from."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from core.config.base import ComponentSpec, Config, Slot
from core.contracts import Context, Geometry, Scene
from core.meshing.normals import vertex_normals
from core.types import Mesh

GREY = 0.72
"""Colour of a mesh that has none, sRGB."""


class LookConfig(Config):
    """How samples are shown."""

    material: Annotated[ComponentSpec, Slot("material")]
    """Features to colour."""
    background: Annotated[ComponentSpec, Slot("background")]
    """What is behind the object."""
    renderer: Annotated[ComponentSpec, Slot("renderer")]
    """Makes pictures of it."""


class MadeMesh(Geometry):
    """A mesh as it is, without parameters; its features are the logits of its vertices' colours, grey without any."""

    def __init__(self, mesh: Mesh, context: Context) -> None:
        super().__init__(None, context)
        parts: Any = (t if t is None else t.detach().to(context.device) for t in vars(mesh).values())
        self.made = Mesh(*parts)
        if self.made.normals is None:
            self.made.normals = vertex_normals(self.made.vertices, self.made.faces)
        self._tree: Any = None

    def surface(self) -> Mesh:
        return self.made

    def mesh(self, resolution: int) -> Mesh:
        """The mesh itself, whatever ``resolution``."""
        return self.made

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        """[N, 3] logits of the nearest vertex's colour at points [N, 3]."""
        if self.made.colors is None:
            return points.new_full((len(points), 3), GREY).logit()
        if self._tree is None:
            self._tree = cKDTree(self.made.vertices.cpu().numpy())
        near = torch.from_numpy(self._tree.query(points.detach().cpu().numpy())[1]).to(points.device)
        return self.made.colors[near].clamp(1e-4, 1 - 1e-4).logit()


def geometry_scene(
    geometry: Geometry, look: LookConfig, context: Context, name: str = "asset", prompt: str = ""
) -> Scene:
    """A geometry with parts of its own round it; ``context`` is the generator's, and stays as it is."""
    from core.stages import component_builder

    registry = context.parts["registry"]
    own = Context(context.device, context.seed, bound=context.bound, parts={"registry": registry, "geometry": geometry})
    own.build = component_builder(registry, own)
    for kind in ("material", "background", "renderer"):
        own.parts[kind] = own.build(getattr(look, kind)).to(context.device).eval()
    parts = {kind: own.parts[kind] for kind in ("material", "background", "renderer")}
    return Scene(geometry, **parts, name=name, prompt=prompt)


def mesh_scene(mesh: Mesh, look: LookConfig, context: Context, name: str = "asset", prompt: str = "") -> Scene:
    """As :func:`geometry_scene`, of a mesh; ``look.renderer`` must be one that shows meshes."""
    return geometry_scene(MadeMesh(mesh, context), look, context, name, prompt)
