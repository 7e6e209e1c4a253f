"""LION (Zeng et al. 2022, "LION: Latent Point Diffusion Models for 3D Shape Generation")."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    at = "plugins.lion."
    registry.add("generator", "lion", at + "lion:Lion",
                 "diffusion in a global and a point-structured latent of shapes",
                 gives=["mesh", "features"])  # fmt: skip
