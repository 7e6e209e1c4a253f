"""Signed distance fields."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "sdf", "plugins.sdf.sdf:SDF",
                 "signed distance network on a hash grid, rendered as NeuS or VolSDF do",
                 gives=["density", "sdf", "features", "sdf-gradient"])  # fmt: skip
