"""Karlo, a public unCLIP, as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "karlo", "plugins.karlo.prior:Karlo",
                 "Karlo: a text to a picture's embedding to 64 x 64 pixels",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
