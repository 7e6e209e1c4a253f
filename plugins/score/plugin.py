"""Scores."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("score", "sds", "plugins.score.sds:SDS", "score distillation sampling (DreamFusion)",
                 needs=["rgb|latent", "text"])  # fmt: skip
