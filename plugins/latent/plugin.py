"""Scenes that are made of a prior's latents."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("material", "latent", "plugins.latent.latent:Latent",
                 "features are the prior's latents, rendered as they are (Latent-NeRF, SJC)",
                 needs=["features"], gives=["latent"])  # fmt: skip
    registry.add("material", "hybrid-latent", "plugins.latent.hybrid:HybridLatent",
                 "colours and the prior's latents side by side", needs=["features"], gives=["latent"])  # fmt: skip
    registry.add("material", "latent-to-rgb", "plugins.latent.to_rgb:LatentToRgb",
                 "a learned linear map from a prior's latents to colours (Latent-NeRF's refinement)",
                 needs=["features"])  # fmt: skip
