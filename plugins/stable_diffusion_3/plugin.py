"""Stable Diffusion 3 as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "stable-diffusion-3", "plugins.stable_diffusion_3.prior:StableDiffusion3",
                 "Stable Diffusion 3 or 3.5: a rectified flow, told by two CLIP towers and T5",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
