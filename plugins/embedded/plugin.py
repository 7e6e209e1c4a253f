"""The embedded family: its prior, and the fits that made it."""

from core import hookimpl

API = 1


@hookimpl
def estimate_elevation(views):  # type: ignore[no-untyped-def]
    from plugins.embedded.captioned import elevation_of

    return elevation_of(views)


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    at = "plugins.embedded."
    registry.add("prior", "embedded", at + "prior:Embedded", "the small text-to-image prior that ships",
                 needs=["rgb", "text", "camera"], gives=["latent"])  # fmt: skip
    registry.add("task", "embedded-autoencoder", at + "autoencoder:EmbeddedAutoencoder", "fit the family's autoencoder")
    registry.add("task", "embedded-clip", at + "clip:EmbeddedClip", "fit the family's CLIP")
    registry.add("task", "embedded-classifier", at + "classifier:EmbeddedClassifier", "fit the family's judge")
    registry.add("task", "embedded-unet", at + "unet:EmbeddedUnet", "fit the family's text-to-image UNet")
    registry.add("prior", "embedded-captioned", at + "captioned:EmbeddedCaptioned",
                 "the small text-to-image prior, told what a picture seems to show",
                 needs=["rgb", "image", "camera"], gives=["latent"])  # fmt: skip
    registry.add("prior", "embedded-zero123", at + "zero123:EmbeddedZero123",
                 "the small picture-and-viewpoint prior that ships",
                 needs=["rgb", "image", "camera"], gives=["latent"])  # fmt: skip
    registry.add("prior", "embedded-multiview", at + "multiview:EmbeddedMultiView",
                 "the small multi-view prior that ships",
                 needs=["rgb", "camera", "multiview"], gives=["latent"])  # fmt: skip
    registry.add("task", "embedded-multiview", at + "fit_multiview:EmbeddedMultiViewFit",
                 "fit the family's multi-view UNet")  # fmt: skip
    registry.add("task", "embedded-zero123", at + "fit_zero123:EmbeddedZero123Fit",
                 "fit the family's picture-to-view UNet")  # fmt: skip
    registry.add("task", "embedded-sight", at + "sight:EmbeddedSight",
                 "fit the family's estimate of where a picture was taken from")  # fmt: skip
    registry.add("metric", "judge", at + "judge:Judge", "category, colour and Janus by an independent classifier",
                 needs=["rgb", "camera", "text"])  # fmt: skip
    registry.add("metric", "clip", at + "judge:ClipPrecision", "R-precision by the embedded CLIP",
                 needs=["rgb", "text"])  # fmt: skip
    registry.add("command", "eval-embedded", at + "evaluate:evaluate", "what the embedded priors can do")
