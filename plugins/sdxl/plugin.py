"""Stable Diffusion XL as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "sdxl", "plugins.sdxl.prior:StableDiffusionXL",
                 "Stable Diffusion XL: two CLIP towers, told the size and crop of its pictures",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
