"""Sana as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "sana", "plugins.sana.prior:Sana",
                 "Sana: a small rectified flow in latents 32 times smaller than the picture, told by Gemma",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
