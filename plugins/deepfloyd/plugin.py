"""DeepFloyd IF as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "deepfloyd-if", "plugins.deepfloyd.prior:DeepFloyd",
                 "DeepFloyd IF, stage I: 64x64 pixels, told by T5",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
