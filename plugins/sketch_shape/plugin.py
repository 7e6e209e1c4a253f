"""Sketch-Shape: a coarse mesh says where a field should be dense."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "sketched", "plugins.sketch_shape.sketched:Sketched",
                 "a density field and the sketch mesh that guides it (Sketch-Shape)",
                 gives=["density", "features", "sketch"])  # fmt: skip
    registry.add("loss", "sketch-shape", "plugins.sketch_shape.loss:sketch_shape",
                 "a field is dense inside a sketch mesh and empty outside, freely so near its surface",
                 needs=["sketch"])  # fmt: skip
