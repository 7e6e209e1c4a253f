"""OBJ with a material file and a PNG beside it: what every older tool reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.contracts import Exporter, Scene
from core.types import Mesh
from plugins.export.assets import (
    TexturedConfig,
    destination,
    skipped,
    surface_arrays,
    texture_image,
    textured_mesh,
    y_up,
)

_MATERIAL = "newmtl {name}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {image}\n"


def obj_text(mesh: Mesh, name: str, library: str) -> str:
    """The OBJ file of a textured mesh, y up with its front on +z like the GLB.

    ``vt`` has its origin at the lower left, as the mesh's UVs do: nothing is turned over.
    """
    vertices, normals, uv = surface_arrays(mesh)
    corners = np.asarray(mesh.faces).repeat(3, 1) + 1
    return "".join(
        [
            f"mtllib {library}\no {name}\n",
            _rows("v %.6f %.6f %.6f\n", y_up(vertices)),
            _rows("vt %.6f %.6f\n", uv),
            _rows("vn %.4f %.4f %.4f\n", y_up(normals)),
            f"usemtl {name}\n",
            _rows("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners),
        ]
    )


def _rows(line: str, values: Any) -> str:
    """``line`` filled with each row of ``values`` [N, K], all rows at once: a loop over them takes seconds."""
    return (line * len(values)) % tuple(np.asarray(values).ravel().tolist())


class ObjExporter(Exporter):
    """Writes ``<name>.obj``, ``<name>.mtl`` and ``<name>.png``."""

    Config = TexturedConfig

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        mesh = textured_mesh(scene, self.options)
        if mesh is None:
            skipped(scene, ".obj")
            return
        image, library, path = (destination(scene, folder, suffix) for suffix in (".png", ".mtl", ".obj"))
        # Names in these files end at a blank.
        name = "_".join(scene.name.split()) or "asset"
        texture_image(mesh).save(image)
        yield image
        library.write_text(_MATERIAL.format(name=name, image=image.name), encoding="utf-8")
        yield library
        path.write_text(obj_text(mesh, name, library.name), encoding="utf-8")
        yield path
