"""unCLIP (Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents")."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("generator", "unclip", "plugins.unclip.unclip:Unclip",
                 "text to CLIP picture embedding to picture: prior, decoder, upsampler")  # fmt: skip
    registry.add("command", "eval-unclip", "plugins.unclip.evaluate:evaluate",
                 "unCLIP against what would do without its parts")  # fmt: skip
