"""MeshDiffusion (Liu et al. 2023, "MeshDiffusion: Score-based Generative 3D Mesh Modeling")."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("generator", "mesh-diffusion", "plugins.mesh_diffusion.mesh_diffusion:MeshDiffusion",
                 "diffusion over a grid of tetrahedra whose vertices have a sign and an offset",
                 gives=["mesh", "features"])  # fmt: skip
    registry.add("command", "eval-mesh-diffusion", "plugins.mesh_diffusion.evaluate:evaluate",
                 "a fitted mesh-diffusion's meshes against held-out shapes, beside what needs no model")  # fmt: skip
