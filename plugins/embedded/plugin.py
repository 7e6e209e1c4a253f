"""The embedded family: its prior, and the fits that made it."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    at = "plugins.embedded."
    registry.add("prior", "embedded", at + "prior:Embedded", "the small text-to-image prior that ships",
                 needs=["rgb", "text", "camera"], gives=["latent"])  # fmt: skip
    registry.add("task", "embedded-autoencoder", at + "autoencoder:EmbeddedAutoencoder", "fit the family's autoencoder")
    registry.add("task", "embedded-clip", at + "clip:EmbeddedClip", "fit the family's CLIP")
    registry.add("task", "embedded-classifier", at + "classifier:EmbeddedClassifier", "fit the family's judge")
    registry.add("task", "embedded-unet", at + "unet:EmbeddedUnet", "fit the family's text-to-image UNet")
    registry.add("metric", "judge", at + "judge:Judge", "category, colour and Janus by an independent classifier",
                 needs=["rgb", "camera", "text"])  # fmt: skip
    registry.add("metric", "clip", at + "judge:ClipPrecision", "R-precision by the embedded CLIP",
                 needs=["rgb", "text"])  # fmt: skip
    registry.add("command", "eval-embedded", at + "evaluate:evaluate", "what the embedded priors can do")
