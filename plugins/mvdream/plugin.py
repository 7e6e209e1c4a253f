"""A public multi-view text-to-image prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "mvdream", "plugins.mvdream.mvdream:MVDream",
                 "MVDream, four views denoised together, from a folder or the original checkpoint",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
