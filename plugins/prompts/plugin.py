"""Prompt processors."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prompt", "same", "plugins.prompts.same:Same", "the sentence itself, for every view",
                 gives=["text"])  # fmt: skip
    registry.add("prompt", "view-words", "plugins.prompts.view_words:ViewWords",
                 "the sentence with front, side, back or overhead view", gives=["text", "view-text"])  # fmt: skip
    registry.add("prompt", "debiased-view-words", "plugins.prompts.debiased:DebiasedViewWords",
                 "the same without words that speak against the side (prompt debiasing)",
                 gives=["text", "view-text"])  # fmt: skip
