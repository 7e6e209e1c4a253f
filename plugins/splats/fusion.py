"""A surface and its colours from pictures of Gaussians, taken from all sides.

Gaussians have no surface of their own: a level of their density follows what no picture shows (what lies inside, what
is thin). The depths of pictures are what was optimised; they are fused into a truncated signed distance (Curless and
Levoy 1996), space that pictures look through is carved away, and what none of them sees is inside.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from core.kernels.splatting.pictures import draw
from core.kernels.splatting.projection import rotation_matrices
from core.meshing.cleanup import compact, taubin
from core.meshing.surface import triangulate
from core.spherical_harmonics import Y0
from core.types import Cameras, Mesh, Splats

_VIEWS = 40
_SIZE = 224  # pixels
_DISTANCE = 3.0  # of the cameras, in bounds
_BATCH = 4  # views drawn at once
_BAND = 3.0  # cells within which depths count
_HIDDEN = 0.05  # weight of "behind what is seen": outvotes a stray look-through, not a view into a hollow
_TOLERANCE = 0.03  # of depth, in bounds, within which a point is what a picture shows
_NEAREST = 16
_SMOOTH = 6


class SeenSplats:
    """Pictures of a set of Gaussians and what follows from them.

    Args:
        splats: without gradients.  bound: half the side of the scene's cube.
    """

    def __init__(self, splats: Splats, bound: float) -> None:
        self.splats, self.bound = splats, bound
        self.cameras = all_round(_VIEWS, _DISTANCE * bound, bound, _SIZE).to(splats.means.device)
        pictures, depths, normals = [], [], []
        for first in range(0, _VIEWS, _BATCH):
            seen = draw(splats, self.cameras[first : first + _BATCH])
            pictures.append(torch.cat([seen.rgb, seen.opacity], -1))
            depths.append((seen.depth / seen.opacity.clamp(min=1e-6))[..., 0])
            normals.append(F.normalize(seen.normal, dim=-1))
        self.picture = torch.cat(pictures)  # [B, S, S, 4], colours times opacity, opacity
        self.depth = torch.where(self.picture[..., 3] > 0.5, torch.cat(depths), torch.inf)
        self.normal = torch.cat(normals)

    def distances(self, resolution: int) -> Tensor:
        """[R, R, R] truncated signed distance in cells, positive outside, ``x`` first, from -bound to bound."""
        axis = torch.linspace(-self.bound, self.bound, resolution, device=self.depth.device)
        cell = 2 * self.bound / (resolution - 1)
        low, high = self._box(cell)
        ranges = [axis[(axis >= low[k]) & (axis <= high[k])] for k in range(3)]
        offsets = [int((axis < low[k]).sum()) for k in range(3)]
        full = axis.new_full((resolution,) * 3, _BAND)
        if any(not len(r) for r in ranges):
            return full
        points = torch.stack(torch.meshgrid(*ranges, indexing="ij"), -1).view(-1, 3)
        total, weight = torch.zeros(len(points), device=axis.device), torch.zeros(len(points), device=axis.device)
        for view in range(len(self.cameras)):
            inside, depth, place, z = self._look_up(points, view)
            away = ((depth.view(-1)[place] - z) / cell).clamp(max=_BAND)
            share = torch.where(away < -_BAND, _HIDDEN, 1.0) * inside
            total += share * away.clamp(min=-_BAND)
            weight += share
        found = torch.where(weight > 0, total / weight.clamp(min=1e-6), _BAND)
        part = tuple(slice(o, o + len(r)) for o, r in zip(offsets, ranges, strict=True))
        full[part] = found.view([len(r) for r in ranges])
        return full

    def _box(self, cell: float) -> tuple[Tensor, Tensor]:
        """What holds every Gaussian that can be seen, and a band round it."""
        splats = self.splats
        seen = splats.opacities > 0.05
        reach = 3 * splats.scales.amax(-1, keepdim=True).clamp(max=0.2 * self.bound) + 4 * cell
        if not bool(seen.any()):
            return splats.means.new_ones(3), -splats.means.new_ones(3)
        return (splats.means - reach)[seen].amin(0), (splats.means + reach)[seen].amax(0)

    def _look_up(self, points: Tensor, view: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Whether each point falls into a picture, the picture's depths, the point's pixel there, and its own depth."""
        xy, z = (found[0] for found in self.cameras[view : view + 1].project(points))
        inside = ((xy >= 0) & (xy < _SIZE)).all(-1)
        x, y = xy.clamp(0, _SIZE - 1).long().unbind(-1)
        return inside, self.depth[view], y * _SIZE + x, z

    def mesh(self, resolution: int) -> Mesh:
        """Triangles in world units with a colour per vertex; none where no view shows a surface."""
        grid = -self.distances(resolution)
        vertices, faces = triangulate(grid.cpu().numpy(), 0.0, -_BAND, _BAND)
        if not len(faces):
            return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3))
        vertices, faces = compact(vertices, faces)
        vertices = taubin(vertices, faces, _SMOOTH)
        world = (
            torch.from_numpy(np.ascontiguousarray(vertices)).float() * (2 * self.bound / (resolution - 1)) - self.bound
        )
        colors = self.colors(world.to(self.depth.device)).cpu()
        return Mesh(world, torch.from_numpy(np.ascontiguousarray(faces)), colors)

    def colors(self, points: Tensor) -> Tensor:
        """[N, 3] sRGB in [0, 1] of surface points [N, 3]: the mean over the views that show them, straight views first;
        where none does, that of the Gaussians nearby."""
        total, weight = torch.zeros_like(points), points.new_zeros(len(points), 1)
        for view in range(len(self.cameras)):
            inside, depth, place, z = self._look_up(points, view)
            near = inside & ((depth.view(-1)[place] - z).abs() < _TOLERANCE * self.bound)
            index = torch.nonzero(near)[:, 0]
            if not len(index):
                continue
            camera = self.cameras[view : view + 1]
            towards = F.normalize(camera.position - points[index], dim=-1)
            facing = (self.normal[view].view(-1, 3)[place[index]] * towards).sum(-1, keepdim=True).clamp(min=0)
            share = facing**4 + 1e-4
            total[index] += share * self._sample(camera, points[index], view)
            weight[index] += share
        unseen = torch.nonzero(weight[:, 0] == 0)[:, 0]
        found = total / weight.clamp(min=1e-9)
        if len(unseen):
            found[unseen] = self._nearby(points[unseen])
        return found.clamp(0, 1)

    def _sample(self, camera: Cameras, points: Tensor, view: int) -> Tensor:
        """[N, 3] colour of one picture at points, between its pixels; what is not the object has no say."""
        grid = camera.project(points)[0] * (2 / _SIZE) - 1
        picture = self.picture[view].movedim(-1, 0)[None]
        seen = F.grid_sample(picture, grid[:, None], align_corners=False, padding_mode="border")[0, :, 0].T
        return seen[:, :3] / seen[:, 3:].clamp(min=1e-3)

    def _nearby(self, points: Tensor) -> Tensor:
        """[N, 3] colours of the nearest Gaussians, weighted by what each has at the point."""
        splats = self.splats
        count = min(_NEAREST, len(splats))
        _, found = cKDTree(splats.means.cpu().numpy()).query(points.cpu().numpy(), k=count)
        near = torch.from_numpy(np.asarray(found).reshape(len(points), count)).to(points.device)
        axes = rotation_matrices(splats.rotations)[near]
        local = (axes.mT @ (points[:, None] - splats.means[near])[..., None])[..., 0] / splats.scales[near]
        share = torch.softmax(splats.opacities[near].clamp(min=1e-6).log() - 0.5 * local.square().sum(-1), -1)
        return (share[..., None] * (0.5 + Y0 * splats.sh[near, 0])).sum(1).clamp(0, 1)


def all_round(count: int, distance: float, radius: float, size: int) -> Cameras:
    """Square views evenly over the sphere (a Fibonacci lattice) that frame a ball of ``radius``."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    elevation = torch.asin(1 - 2 * index / count)
    azimuth = index * math.pi * (3 - math.sqrt(5))
    full = torch.ones(count)
    fov = 2 * math.asin(min(0.999, 1.05 * radius / distance))
    return Cameras.orbit(azimuth.float(), elevation.float(), distance * full, fov * full, size, size)
