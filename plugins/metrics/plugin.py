"""Evaluation: text to 3D, and reconstruction of known objects."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("command", "eval-text", "plugins.metrics.eval_text:evaluate",
                 "lift a fixed list of prompts and measure what came out")  # fmt: skip
    registry.add("command", "eval-reconstruction", "plugins.metrics.eval_reconstruction:evaluate",
                 "fit each geometry to posed pictures of known objects and measure what came out")  # fmt: skip
    registry.add("command", "eval-views", "plugins.metrics.eval_views:evaluate",
                 "novel views of unseen objects by a prior that looks at a picture")  # fmt: skip
    registry.add("command", "eval-image", "plugins.metrics.eval_image:evaluate",
                 "make unseen objects from one picture each and measure what came out")  # fmt: skip
    registry.add("command", "eval-consistency", "plugins.metrics.eval_consistency:evaluate",
                 "do the views that a prior draws of one sentence belong to one object")  # fmt: skip
    registry.add("command", "bench-matrix", "plugins.metrics.bench_matrix:bench",
                 "lift one prompt with every geometry under every guidance; writes a page")  # fmt: skip
