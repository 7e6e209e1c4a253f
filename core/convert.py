"""From one representation to another: what a scene holds, and the converter that gives what is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.contracts import Context, Geometry, Scene
from core.errors import UserError, did_you_mean
from core.meshing import cleanup
from core.meshing.surface import overrides
from core.meshing.takeover import surface_of
from core.meshing.texture import density_of, painter, vertex_colours
from core.signals import SIGNALS, alternatives
from core.types import Mesh

if TYPE_CHECKING:
    from core.registry import Entry, Registry

_ALL = 1 << 30  # faces: as many as there are
_METHODS = {"density": ("field", "density"), "sdf": ("sdf",), "mesh": ("mesh", "surface"), "gaussians": ("splats",)}


def representations(geometry: Geometry) -> set[str]:
    """Which of density, sdf, mesh and gaussians a geometry's class provides."""
    return {signal for signal, methods in _METHODS.items() if overrides(geometry, *methods)}


def convert(scene: Scene, to: str, registry: Registry, options: Any = None) -> Any:
    """The scene as ``to``, a signal (``mesh``, ``gaussians``, ``sdf``, ``uv`` …) or the name of a converter.

    Args:
        options: an instance of the converter's ``Config``; None takes its defaults.

    Raises:
        UserError: ``to`` is neither, nothing turns what the scene holds into it, or the scene is empty.
    """
    entry = _chosen(scene, to, registry)
    target = entry.load()
    context = Context(scene.geometry.context.device, scene.geometry.context.seed, bound=scene.geometry.context.bound)
    context.parts["registry"] = registry
    return target(target.Config() if options is None else options, context).convert(scene)


def _chosen(scene: Scene, to: str, registry: Registry) -> Entry:
    entries, have = registry.entries("converter"), representations(scene.geometry)
    named = [e for e in entries if to in (e.name, e.qualified)]
    giving = named or [e for e in entries if to in e.gives]
    if not giving:
        known = {s for e in entries for s in e.gives} | {e.name for e in entries}
        what = "no converter gives" if to in SIGNALS else "there is no converter, and no signal,"
        raise UserError(f"{what} '{to}'.{did_you_mean(to, known)}")
    fitting = [e for e in giving if all(have.intersection(alternatives(need)) for need in e.needs)]
    if not fitting:
        holds = " and ".join(sorted(have)) or "nothing that can be converted"
        ways = "; ".join(f"{e.name} needs {', '.join(e.needs)}" for e in giving)
        raise UserError(f"{type(scene.geometry).__name__} holds {holds}, which cannot become '{to}': {ways}")
    return min(fitting, key=lambda e: len(e.gives))  # the one that was made for it


def scene_mesh(scene: Scene, resolution: int = 128, level: float | None = None, faces: int | None = None) -> Mesh:
    """The scene's surface with a normal and a colour per vertex, cleaned of specks.

    Args:
        resolution: grid points along a side of the scene's cube, for fields.
        level: of a density; None chooses it.  faces: at most about this many triangles.

    Raises:
        UserError: there is no surface.
    """
    name = type(scene.geometry).__name__
    if not representations(scene.geometry) & {"density", "sdf", "mesh"}:
        raise UserError(f"there is nothing to start from: {name} has no density, no signed distance and no mesh")
    surface = surface_of(scene.geometry, resolution, _ALL if faces is None else faces, level)
    vertices, triangles = surface.vertices, surface.faces
    normals = cleanup.vertex_normals(vertices, triangles)
    colours = vertex_colours(painter(scene, surface), density_of(scene, surface), surface, vertices, normals)
    arrays = (torch.from_numpy(np.ascontiguousarray(a)) for a in (vertices, triangles, colours, normals))
    return Mesh(*arrays)
