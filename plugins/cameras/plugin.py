"""Camera sources."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("data", "random-cameras", "plugins.cameras.random_cameras:RandomCameras",
                 "random views round the object, spread in azimuth", gives=["camera"])  # fmt: skip
    registry.add("data", "given-views", "plugins.cameras.given_views:GivenViews",
                 "the pictures that the job was given, alone or beside other views", needs=["image"],
                 gives=["camera", "target", "target-mask", "target-nearness", "target-normal"])  # fmt: skip
