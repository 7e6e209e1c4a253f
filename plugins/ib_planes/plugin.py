"""IB-planes (Anciukevičius et al. 2024)."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "image-planes", "plugins.ib_planes.image_planes:ImagePlanes",
                 "a plane of features at each of several cameras, fetched where a point appears in them",
                 gives=["density", "features"])  # fmt: skip
    registry.add("generator", "ib-planes", "plugins.ib_planes.ib_planes:IBPlanes",
                 "diffusion over the views of a scene through planes of features at their cameras",
                 gives=["density", "features"])  # fmt: skip
    registry.add("command", "eval-ib-planes", "plugins.ib_planes.evaluate:evaluate",
                 "views from cameras that fitted image planes never saw, beside what needs no model")  # fmt: skip
