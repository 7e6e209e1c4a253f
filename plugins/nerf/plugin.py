"""Radiance fields."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "hash-grid", "plugins.nerf.hash_grid:HashGrid",
                 "density field on a multiresolution hash grid (Instant-NGP)",
                 gives=["density", "features"])  # fmt: skip
    registry.add("renderer", "volume", "plugins.nerf.volume:Volume",
                 "volume rendering through an occupancy grid", needs=["density", "features"],
                 gives=["rgb", "opacity", "depth", "normal", "weights"])  # fmt: skip
    registry.add("renderer", "volume-proposal", "plugins.nerf.volume_proposal:VolumeProposal",
                 "volume rendering of few samples, placed by a small density", needs=["density", "features"],
                 gives=["rgb", "opacity", "depth", "normal", "weights", "interlevel"])  # fmt: skip
    registry.add("loss", "interlevel", "plugins.nerf.proposal:interlevel",
                 "a proposal allows for all that a ray's samples found", needs=["interlevel"])  # fmt: skip
