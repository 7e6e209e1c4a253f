"""FLUX.1 as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "flux", "plugins.flux.prior:Flux",
                 "FLUX.1 dev or schnell: a rectified flow, told by T5 and a pooled CLIP",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
