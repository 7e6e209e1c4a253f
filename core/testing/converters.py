"""Contract of converter: what it gives is whole, the same twice, and the impossible is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.contracts import Context, Geometry, Scene
from core.errors import UserError
from core.testing import reference
from core.testing.check import Checked
from core.testing.parts import check_mesh, finite
from core.types import DistanceGrid, Mesh, Points, Splats


class DottedBall(reference.Ball):
    """The reference ball with Gaussians on its surface too."""

    def splats(self) -> Splats:
        """One per vertex, 0.08 wide."""
        mesh = self.mesh(0)
        count = len(mesh.vertices)
        rotations = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4)
        return Splats(
            mesh.vertices, torch.full((count, 3), 0.08), rotations, torch.full((count,), 0.9), torch.zeros(count, 1, 3)
        )


class Nothing(Geometry):
    """A geometry that provides no representation at all."""


class Empty(Geometry):
    """A geometry that holds every representation, each of them empty."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        """Density 0."""
        return {"density": torch.zeros(len(points)), "features": torch.zeros(len(points), 3)}

    def sdf(self, points: Tensor) -> Tensor:
        """1 everywhere."""
        return torch.ones(len(points))

    def mesh(self, resolution: int) -> Mesh:
        """No faces."""
        return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))

    def splats(self) -> Splats:
        """No Gaussians."""
        none = torch.zeros(0, 3)
        return Splats(none, none, torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 1, 3))


def check_converter(c: Checked) -> None:
    """Converts a ball; refuses a scene that holds nothing to convert."""
    ball = _scene(DottedBall)
    first, again = (c.build(noise=k).convert(ball) for k in range(2))
    _check_value(c, first)
    tensors, others = _tensors(first), _tensors(again)
    same = len(tensors) == len(others) and all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))
    c.require(same, "it gives the same twice, whatever the global random stream")
    for kind, what in ((Nothing, "nothing that it could read"), (Empty, "an empty scene")):
        try:
            c.build().convert(_scene(kind))
        except UserError as error:
            c.require("\n" not in str(error), f"{what} is refused in one sentence")
        else:
            c.require(False, f"{what} is refused with a UserError", "it was converted")


def _scene(kind: type[Geometry]) -> Scene:
    context = Context()
    scene = reference.scene(context)
    scene.geometry = context.parts["geometry"] = kind(None, context)
    return scene


def _check_value(c: Checked, made: Any) -> None:
    """The value's own type decides what must hold."""
    known = (Mesh, Splats, Points, DistanceGrid, Geometry)
    names = ", ".join(k.__name__ for k in known)
    if not c.require(isinstance(made, known), f"it gives one of {names}", f"found {type(made).__name__}"):
        return
    if isinstance(made, Geometry):
        made = made.mesh(32)
    if isinstance(made, Mesh):
        check_mesh(c, made)
        c.require(len(made.faces) > 0, "the mesh of a ball has faces")
        c.require("uv" not in c.gives or made.uv is not None, "the mesh has the UVs that it declares")
    elif isinstance(made, Splats):
        unit = bool(torch.allclose(made.rotations.norm(dim=-1), torch.ones(len(made)), atol=1e-4))
        c.require(len(made) > 0 and finite(*_tensors(made)), "the Gaussians of a ball are finite, and there are some")
        c.require(unit and bool((made.scales > 0).all()), "quaternions are unit and scales positive")
    elif isinstance(made, Points):
        c.require(len(made.positions) > 0 and finite(made.positions), "the points of a ball are finite")
    else:
        middle = made.values.shape[0] // 2
        c.require(finite(made.values), "distances are finite")
        c.require(float(made.values[middle, middle, middle]) < 0 < float(made.values[0, 0, 0]), "negative inside")


def _tensors(made: Any) -> list[Tensor]:
    if isinstance(made, Geometry):
        return list(made.state_dict().values())
    return [value for value in vars(made).values() if isinstance(value, Tensor)]


CHECKS = {"converter": check_converter}
