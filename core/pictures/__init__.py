"""Given pictures: reading them, telling the object from its background, framing it, and knowing the cameras."""

from core.pictures.views import FRAME, BackgroundRemoval, is_single, read_views

__all__ = ["FRAME", "BackgroundRemoval", "is_single", "read_views"]
