"""Procedural objects."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("command", "bench-objects", "plugins.procedural.bench:bench",
                 "pictures of procedural objects a second; can draw a contact sheet")  # fmt: skip
    registry.add("data", "procedural", "plugins.procedural.data:ProceduralData",
                 "captioned pictures of procedural objects from random cameras",
                 gives=["target", "camera", "text"])  # fmt: skip
    registry.add("data", "procedural-scenes", "plugins.procedural.scene_data:ProceduralScenes",
                 "captioned pictures of several procedural objects on a ground, from random cameras",
                 gives=["target", "camera", "text"])  # fmt: skip
    registry.add("data", "procedural-views", "plugins.procedural.views:ProceduralViews",
                 "posed pictures of one procedural object, some of them held out",
                 gives=["camera", "target", "target-mask"])  # fmt: skip
    registry.add("data", "procedural-shapes", "plugins.procedural.shapes:ProceduralShapes",
                 "solids of procedural objects as exact signed distances", gives=["camera"])  # fmt: skip
    registry.add("data", "procedural-points", "plugins.procedural.points:ProceduralPoints",
                 "points with normals and colours on the surfaces of procedural objects")  # fmt: skip
