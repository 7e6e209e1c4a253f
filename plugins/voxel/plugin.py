"""Fields on a dense grid of voxels."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "voxel", "plugins.voxel.voxel:Voxel",
                 "density and features on a dense grid, colours or a prior's latents (SJC)",
                 gives=["density", "features", "variation"])  # fmt: skip
