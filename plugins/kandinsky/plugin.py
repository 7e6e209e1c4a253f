"""Kandinsky 2.2 as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "kandinsky", "plugins.kandinsky.prior:Kandinsky",
                 "Kandinsky 2.2: a text to a picture's embedding to a picture",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
