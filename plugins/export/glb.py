"""GLB: one file with the mesh, its normals and its texture, in the axes and colour space of glTF 2.0."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import trimesh
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from core.contracts import Exporter, Scene
from core.types import Mesh
from plugins.export.assets import (
    TexturedConfig,
    destination,
    skipped,
    surface_arrays,
    surface_image,
    texture_image,
    textured_mesh,
    y_up,
)


def glb_bytes(mesh: Mesh, name: str) -> bytes:
    """A textured mesh as the bytes of a GLB file.

    glTF is y up with its front on +z; ``baseColorTexture`` is sRGB by the standard, as the atlas is. The material has
    the mesh's roughness and metallic; without them it is a rough dielectric: the texture shows as it was baked. No
    colour per vertex is written, which viewers would multiply with the texture.

    Args:
        mesh: with normals, UVs and texture.  name: of the node and the mesh in the file.
    """
    surface = surface_image(mesh)
    material = PBRMaterial(
        name=f"{name}-material",
        baseColorTexture=texture_image(mesh),
        baseColorFactor=[255, 255, 255, 255],
        metallicRoughnessTexture=surface,
        metallicFactor=0.0 if surface is None else 1.0,
        roughnessFactor=0.9 if surface is None else 1.0,
        doubleSided=True,
    )
    vertices, normals, uv = surface_arrays(mesh)
    body = trimesh.Trimesh(
        y_up(vertices),
        mesh.faces.cpu().numpy(),
        vertex_normals=y_up(normals),
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )
    scene = trimesh.Scene()
    scene.add_geometry(body, geom_name=name, node_name=name)
    data: bytes = trimesh.exchange.gltf.export_glb(scene, include_normals=True)
    return data


class GlbExporter(Exporter):
    """Writes ``<name>.glb``: y up, front on +z, texture inside."""

    Config = TexturedConfig

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        mesh = textured_mesh(scene, self.options)
        if mesh is None:
            skipped(scene, ".glb")
            return
        path = destination(scene, folder, ".glb")
        path.write_bytes(glb_bytes(mesh, scene.name))
        yield path
