"""Gaussian splats."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("geometry", "splats", "plugins.splats.splats:SplatSet",
                 "set of anisotropic Gaussians that grows where pictures ask for it (3DGS)",
                 gives=["gaussians", "features"])  # fmt: skip
    registry.add("renderer", "splat-rasterizer", "plugins.splats.splat_rasterizer:SplatRasterizer",
                 "blends Gaussians front to back (EWA splatting)", needs=["gaussians"],
                 gives=["rgb", "opacity", "depth", "normal"])  # fmt: skip
    registry.add("exporter", "splat-ply", "plugins.splats.splat_ply:SplatPlyExporter",
                 "Gaussians as PLY in the layout that splat viewers read", needs=["gaussians"])  # fmt: skip
