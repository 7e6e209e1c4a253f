"""Deformable tetrahedra."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "tetrahedra", "plugins.tetrahedra.tetrahedra:Tetrahedra",
                 "deformable tetrahedral grid with a signed distance at its vertices (DMTet)",
                 gives=["mesh", "sdf", "features", "sdf-edges", "face-normals", "umbrella"])  # fmt: skip
