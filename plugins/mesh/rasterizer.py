"""Renderer ``mesh-rasterizer``: the surface of a geometry, one material evaluation a pixel, smooth at its silhouettes.

Visibility by :mod:`core.kernels.mesh_raster`; gradients reach the vertices through positions, normals and, at
silhouettes, through analytic antialiasing (Laine et al. 2020).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.contracts import Context, Renderer, Step
from core.errors import UserError
from core.kernels.mesh_raster import Fragments, antialias, homogeneous, interpolate, neighbours, rasterise
from core.meshing.normals import face_normals, vertex_normals
from core.types import Cameras, Mesh, Render


class MeshRasterizer(Renderer):
    """Colour over the background, opacity, depth, world-space normals; ``uv`` [B, H, W, 2] where the mesh has any."""

    class Config(BaseConfig):
        normals: Literal["smooth", "flat"] = "smooth"
        """Interpolated from the vertices, or each face's own."""
        supersample: int = Field(1, ge=1, le=8)
        """Samples along each side of a pixel."""
        near: float = Field(0.01, gt=0)
        """Least depth that is seen, world units; faces are cut there."""
        kernel: Literal["auto", "reference", "numba", "pytorch3d", "nvdiffrast"] = "auto"
        """Backend of the rasteriser."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._backend = None if options.kernel == "auto" else options.kernel
        self._topology: tuple[Tensor, Tensor, Tensor] | None = None

    def _part(self, kind: str) -> Any:
        # Looked up, not kept as an attribute: a renderer does not own the geometry's parameters.
        return self.context.parts[kind]

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    def forward(self, cameras: Cameras, step: Step | None = None) -> Render:
        fine, s = cameras, self.options.supersample
        if s > 1:
            fine = cameras.resized(cameras.height * s, cameras.width * s)
        mesh = self._part("geometry").surface()
        if step is not None and not bool(torch.isfinite(mesh.vertices).all()):
            raise UserError(f"the mesh has vertices that are not finite at step {step.index}; lower the learning rate")
        seen = self._smooth(*self._shaded(mesh, fine, step is not None), s)
        opacity = seen["opacity"]
        extras: dict[str, Tensor] = {k: seen[k] for k in ("uv", "latent") if k in seen}
        rgb = seen["rgb"]
        if "latent" in extras and step is None:
            shown = self._part("material").picture(extras["latent"])
            rgb = rgb if shown is None else shown
        return Render(rgb, opacity, cameras, seen["depth"], seen["normal"], extras)

    def _shaded(
        self, mesh: Mesh, cameras: Cameras, training: bool
    ) -> tuple[dict[str, Tensor], Fragments, Tensor, Mesh]:
        """Pictures by name, not yet smooth at silhouettes, and what smoothing them takes."""
        points = homogeneous(cameras, mesh.vertices)
        size = (cameras.height, cameras.width)
        fragments = rasterise(points, mesh.faces, *size, near=self.options.near, backend=self._backend)
        hit = fragments.face >= 0
        place = interpolate(mesh.vertices, mesh.faces, fragments, self._backend)
        normal = self._normals(mesh, fragments)
        uv = None if mesh.uv is None else interpolate(mesh.uv, mesh.faces, fragments, self._backend)
        _, directions = cameras.rays()
        light = cameras.position[:, None, None] + place.new_tensor([0.0, 0.0, 0.5])  # a little above the camera
        material = self._part("material")
        features = self._part("geometry").features(place[hit], None if uv is None else uv[hit])
        colour = material(features, place[hit], directions[hit], normal[hit], light.expand_as(place)[hit])
        behind = self._part("background")(directions)
        where = hit.nonzero(as_tuple=True)
        pictures = {
            "rgb": behind.index_put(where, colour.to(behind)),
            "opacity": hit[..., None].to(place),
            "normal": normal,
            "depth": fragments.depth[..., None],
        }
        if uv is not None:
            pictures["uv"] = uv
        if material.latent:
            pictures["latent"] = material.behind(behind).index_put(where, material.latents(features))
        return pictures, fragments, points, mesh

    def _normals(self, mesh: Mesh, fragments: Fragments) -> Tensor:
        """[B, H, W, 3] unit where a face is seen, 0 elsewhere."""
        if self.options.normals == "flat":
            hit = fragments.face >= 0
            found = face_normals(mesh.vertices, mesh.faces)
            picture = found.new_zeros(*hit.shape, 3)
            return picture.index_put(hit.nonzero(as_tuple=True), found[fragments.face[hit]])
        own = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
        return F.normalize(interpolate(own, mesh.faces, fragments, self._backend), dim=-1, eps=1e-8)

    def _smooth(
        self, pictures: dict[str, Tensor], fragments: Fragments, points: Tensor, mesh: Mesh, s: int
    ) -> dict[str, Tensor]:
        """Antialias what is mixed over the background; depth and UVs stay those of the face that a centre sees."""
        names = [n for n in ("rgb", "opacity", "normal", "latent") if n in pictures]
        flat = torch.cat([pictures[n] for n in names], -1)
        faces, across = self._welded(mesh)
        flat = antialias(flat, fragments, points, faces, across, self.options.near, self._backend)
        out = dict(zip(names, flat.split([pictures[n].shape[-1] for n in names], -1), strict=True))
        out["rgb"], out["opacity"] = out["rgb"].clamp(0, 1), out["opacity"].clamp(0, 1)  # rounding alone
        for name in ("depth", "uv"):
            if name in pictures:
                out[name] = pictures[name]
        if s == 1:
            return out
        hit = (fragments.face >= 0)[..., None].to(flat)
        share = _shrunk(hit, s)
        small = {n: _shrunk(v, s) for n, v in out.items()}
        for name in ("depth", "uv"):
            if name in small:  # the mean over the samples that hit
                small[name] = small[name] / share.clamp(min=1e-6)
        return small

    def _welded(self, mesh: Mesh) -> tuple[Tensor, Tensor]:
        """Faces and their neighbours; where UVs split vertices, those in one place count as one: a seam in the texture
        is no border of the surface. Kept for as long as the geometry hands out the same faces."""
        known = self._topology
        if known is not None and known[0] is mesh.faces:
            return known[1], known[2]
        faces = mesh.faces
        if mesh.uv is not None and len(faces):
            _, place = torch.unique(mesh.vertices.detach(), dim=0, return_inverse=True)
            first = torch.full_like(place, len(place)).scatter_reduce(
                0, place, torch.arange(len(place), device=place.device), "amin"
            )
            faces = first[place][faces]
        self._topology = (mesh.faces, faces, neighbours(faces))
        return self._topology[1], self._topology[2]


def _shrunk(picture: Tensor, s: int) -> Tensor:
    """[B, H s, W s, C] to [B, H, W, C] means."""
    return F.avg_pool2d(picture.movedim(-1, 1), s).movedim(1, -1)
