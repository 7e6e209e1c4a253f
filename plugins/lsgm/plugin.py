"""LSGM, on pictures."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    at = "plugins.lsgm."
    registry.add("generator", "lsgm", at + "lsgm:Lsgm",
                 "a score model in the latents of a hierarchical autoencoder, both trained together")  # fmt: skip
    registry.add("command", "eval-lsgm", at + "evaluate:evaluate",
                 "likelihood and samples of a fitted lsgm after each stage")  # fmt: skip
