"""RealFusion (Melas-Kyriazi et al. 2023): a word for one picture, for priors that only read."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("task", "textual-inversion", "plugins.realfusion.textual_inversion:TextualInversion",
                 "learn a word for what a picture shows", needs=["image"], gives=["rgb", "text"])  # fmt: skip
