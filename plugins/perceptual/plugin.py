"""A perceptual loss."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("loss", "perceptual", "plugins.perceptual.perceptual:perceptual",
                 "a network sees the same in a render and in the data's picture: LPIPS, or the small CLIP that ships",
                 needs=["rgb", "target"])  # fmt: skip
