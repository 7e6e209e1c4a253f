"""Camera sources."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("data", "random-cameras", "plugins.cameras.random_cameras:RandomCameras",
                 "random views round the object, spread in azimuth", gives=["camera"])  # fmt: skip
