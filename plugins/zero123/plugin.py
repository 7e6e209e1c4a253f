"""Public viewpoint-conditioned priors."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "zero123", "plugins.zero123.zero123:Zero123",
                 "Zero-1-to-3, Zero123-XL or Stable Zero123 from a diffusers folder or an original checkpoint",
                 needs=["rgb", "image", "camera"], gives=["latent"])  # fmt: skip
