"""Converters between representations."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("converter", "field-to-mesh", "plugins.converters.field_to_mesh:FieldToMesh",
                 "a density's or a signed distance's surface as a coloured mesh",
                 needs=["density|sdf"], gives=["mesh"])  # fmt: skip
    registry.add("converter", "splats-to-mesh", "plugins.converters.splats_to_mesh:SplatsToMesh",
                 "the surface that pictures of Gaussians show, as a coloured mesh",
                 needs=["gaussians", "mesh"], gives=["mesh"])  # fmt: skip
    registry.add("converter", "mesh-to-splats", "plugins.converters.mesh_to_splats:MeshToSplats",
                 "flat Gaussians spread over a surface, in its colours",
                 needs=["mesh|density|sdf"], gives=["gaussians"])  # fmt: skip
    registry.add("converter", "mesh-to-sdf", "plugins.converters.mesh_to_sdf:MeshToSdf",
                 "a grid of signed distances to a surface",
                 needs=["mesh|density|sdf"], gives=["sdf"])  # fmt: skip
    registry.add("converter", "mesh-to-uv", "plugins.converters.mesh_to_uv:MeshToUv",
                 "a surface cut into charts, with texture coordinates",
                 needs=["mesh|density|sdf"], gives=["uv"])  # fmt: skip
    registry.add("converter", "field-to-tetrahedra", "plugins.converters.field_to_tetrahedra:FieldToTetrahedra",
                 "a deformable tetrahedral grid with the scene's shape and colours",
                 needs=["density|sdf|mesh"], gives=["mesh", "sdf", "features"])  # fmt: skip
