"""Evaluation of text to 3D."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("command", "eval-text", "plugins.metrics.eval_text:evaluate",
                 "lift a fixed list of prompts and measure what came out")  # fmt: skip
