"""Triangle meshes."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("renderer", "mesh-rasterizer", "plugins.mesh.rasterizer:MeshRasterizer",
                 "rasterised surface with antialiased silhouettes", needs=["mesh", "features"],
                 gives=["rgb", "opacity", "depth", "normal", "uv"])  # fmt: skip
    registry.add("geometry", "mesh", "plugins.mesh.mesh:MeshGeometry",
                 "a mesh, from a file or an earlier stage, whose texture (and, if asked, shape) is learned",
                 gives=["mesh", "features", "uv", "face-normals", "umbrella"])  # fmt: skip
