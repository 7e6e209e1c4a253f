"""Declares the exporters; they share one surface and one texture through ``scene.cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import hookimpl

if TYPE_CHECKING:
    from core.registry import Registrar

API = 1

_SURFACE = ["density|sdf|mesh|gaussians"]
_PICTURES = ["rgb"]
_EXPORTERS = [
    ("glb", "glb:GlbExporter", "Textured mesh as one GLB file (Y up, opens in any viewer).", _SURFACE),
    ("obj", "obj:ObjExporter", "Textured mesh as OBJ with its MTL and PNG.", _SURFACE),
    ("ply", "ply:PlyExporter", "Dense mesh with a colour and a normal per vertex, binary PLY.", _SURFACE),
    (
        "preview",
        "preview:PreviewExporter",
        "The mesh as a viewer shows it: textured, lit, plain.",
        _SURFACE,
    ),
    (
        "video",
        "turntable:TurntableExporter",
        "A turn round the object: MP4, or GIF without ffmpeg.",
        _PICTURES,
    ),
    (
        "sheet",
        "sheet:SheetExporter",
        "Contact sheet: colour, depth, normals from several sides.",
        _PICTURES,
    ),
    ("gallery", "gallery:GalleryExporter", "One colour and one depth picture, ready for a page.", _PICTURES),
]


@hookimpl
def register(registry: Registrar) -> None:
    """Add the exporters."""
    for name, target, doc, needs in _EXPORTERS:
        registry.add("exporter", name, f"plugins.export.{target}", doc, needs=needs)
