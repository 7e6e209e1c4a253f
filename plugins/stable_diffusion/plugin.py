"""Public latent text-to-image priors."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "stable-diffusion", "plugins.stable_diffusion.prior:StableDiffusion",
                 "Stable Diffusion 1.x or 2.x from a diffusers folder or the hub",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
