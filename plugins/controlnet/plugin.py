"""Stable Diffusion with a ControlNet (Zhang et al. 2023) as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "controlnet", "plugins.controlnet.prior:ControlNet",
                 "Stable Diffusion told the scene's own normals, depth or edges",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
