"""Fields on three planes."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "triplane", "plugins.triplane.triplane:Triplane",
                 "density field from three feature planes and a small network (EG3D)",
                 gives=["density", "features", "variation"])  # fmt: skip
