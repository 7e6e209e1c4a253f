"""Backgrounds."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("background", "solid", "plugins.backgrounds.solid:Solid", "one colour everywhere, fixed or learned")
    registry.add("background", "neural", "plugins.backgrounds.neural:Neural", "a small network of the view direction")
    registry.add("background", "textured", "plugins.backgrounds.textured:Textured",
                 "a panorama, from a file, made, or learned")  # fmt: skip
