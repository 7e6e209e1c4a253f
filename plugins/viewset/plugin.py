"""Viewset Diffusion (Szymanowicz et al. 2023)."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("generator", "viewset", "plugins.viewset.viewset:Viewset",
                 "diffusion over the views of an object through a volume: from no picture, one or several",
                 gives=["density", "features"])  # fmt: skip
    registry.add("command", "eval-viewset", "plugins.viewset.evaluate:evaluate",
                 "views that a fitted viewset never saw, from 0 to 3 pictures, beside what needs no model")  # fmt: skip
