"""InstructPix2Pix as a prior."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("prior", "instruct-pix2pix", "plugins.instruct_pix2pix.prior:InstructPix2Pix",
                 "InstructPix2Pix: what a view becomes by an instruction",
                 needs=["rgb", "text|view-text"], gives=["latent"])  # fmt: skip
