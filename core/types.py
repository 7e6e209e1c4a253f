"""The values that components hand to each other: cameras, renders, conditions, meshes.

Conventions, written down once for the whole project:

* world: right-handed, z up; an object's front faces +x; scenes fit in a sphere of radius 1 round the origin;
* azimuth 0 looks at the front from +x and grows counter-clockwise seen from above (90 degrees: from +y);
  elevation is positive above the horizon; both in radians in tensors, degrees in configurations;
* cameras: OpenGL axes (x right, y up, looks along -z), ``c2w`` maps camera to world, field of view is vertical;
* colour: sRGB-encoded in [0, 1]; depth: distance along the viewing axis, 0 where nothing was hit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras.

    Attributes:
        c2w: [B, 4, 4] camera-to-world, OpenGL axes.
        fov_y: [B] vertical field of view, radians in (0, pi).
        height, width: size in pixels.
        principal: [B, 2] where the viewing axis meets the picture, in pixels from its upper left corner (x, y); None is
            the picture's centre.
    """

    c2w: Tensor  # [B, 4, 4]
    fov_y: Tensor  # [B]
    height: int
    width: int
    principal: Tensor | None = None  # [B, 2]

    @classmethod
    def orbit(
        cls,
        azimuth: Tensor,  # [B] radians
        elevation: Tensor,  # [B] radians
        distance: Tensor,  # [B]
        fov_y: Tensor,  # [B] radians
        height: int,
        width: int,
        center: Tensor | None = None,  # [3] or [B, 3]
    ) -> Cameras:
        """Cameras on a sphere that look at ``center`` (the origin by default)."""
        ce, se = torch.cos(elevation), torch.sin(elevation)
        ca, sa = torch.cos(azimuth), torch.sin(azimuth)
        back = torch.stack([ce * ca, ce * sa, se], -1)  # from the object to the camera: the camera's +z
        right = torch.stack([-sa, ca, torch.zeros_like(sa)], -1)  # exact at the poles too: no up vector is crossed
        up = torch.cross(back, right, dim=-1)
        eye = back * distance[:, None]
        if center is not None:
            eye = eye + center
        c2w = torch.zeros(azimuth.shape[0], 4, 4, dtype=azimuth.dtype, device=azimuth.device)
        c2w[:, :3, 0], c2w[:, :3, 1], c2w[:, :3, 2], c2w[:, :3, 3] = right, up, back, eye
        c2w[:, 3, 3] = 1.0
        return cls(c2w, fov_y, height, width)

    @classmethod
    def turntable(cls, azimuth: Tensor, elevation: float, size: int, distance: float = 3.0) -> Cameras:
        """Square views at ``azimuth`` [B] and one elevation, radians; 40 degrees of view frame the unit sphere."""
        fov = torch.full_like(azimuth, 40.0).deg2rad()
        tilt, far = torch.full_like(azimuth, elevation), torch.full_like(azimuth, distance)
        return cls.orbit(azimuth, tilt, far, fov, size, size)

    def __len__(self) -> int:
        return int(self.c2w.shape[0])

    def __getitem__(self, index: slice | Tensor) -> Cameras:
        principal = None if self.principal is None else self.principal[index]
        return replace(self, c2w=self.c2w[index], fov_y=self.fov_y[index], principal=principal)

    @classmethod
    def cat(cls, parts: list[Cameras]) -> Cameras:
        """One batch of several, all of one size (else ValueError)."""
        if len({(p.height, p.width) for p in parts}) > 1:
            raise ValueError("cameras of several sizes cannot be one batch")
        centers = [p.center for p in parts] if any(p.principal is not None for p in parts) else None
        return replace(
            parts[0],
            c2w=torch.cat([p.c2w for p in parts]),
            fov_y=torch.cat([p.fov_y for p in parts]),
            principal=None if centers is None else torch.cat(centers),
        )

    def to(self, device: torch.device | str) -> Cameras:
        principal = None if self.principal is None else self.principal.to(device)
        return replace(self, c2w=self.c2w.to(device), fov_y=self.fov_y.to(device), principal=principal)

    def resized(self, height: int, width: int) -> Cameras:
        """The same views at another resolution."""
        principal = self.principal
        if principal is not None:
            principal = principal * principal.new_tensor([width / self.width, height / self.height])
        return replace(self, height=height, width=width, principal=principal)

    @property
    def position(self) -> Tensor:
        """[B, 3] camera centres in the world."""
        return self.c2w[:, :3, 3]

    @property
    def distance(self) -> Tensor:
        """[B] distance to the origin."""
        return self.position.norm(dim=-1)

    @property
    def azimuth(self) -> Tensor:
        """[B] radians in (-pi, pi], of the viewing direction (defined at the poles too)."""
        right = self.c2w[:, :3, 0]
        return torch.atan2(-right[:, 0], right[:, 1])

    @property
    def elevation(self) -> Tensor:
        """[B] radians in [-pi/2, pi/2], of the viewing direction."""
        return torch.asin(self.c2w[:, 2, 2].clamp(-1, 1))

    @property
    def world_to_camera(self) -> Tensor:
        """[B, 4, 4] rigid inverse of ``c2w``, OpenGL axes: what is seen has negative z."""
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        out = torch.zeros_like(self.c2w)
        out[:, :3, :3] = rotation
        out[:, :3, 3] = -(rotation @ self.c2w[:, :3, 3:])[..., 0]
        out[:, 3, 3] = 1.0
        return out

    @property
    def focal(self) -> Tensor:
        """[B] focal length in pixels; pixels are square."""
        return 0.5 * self.height / torch.tan(self.fov_y / 2)

    @property
    def center(self) -> Tensor:
        """[B, 2] the principal point in pixels from the upper left corner (x, y), whether given or not."""
        if self.principal is not None:
            return self.principal
        return self.c2w.new_tensor([self.width / 2, self.height / 2]).expand(len(self), 2)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points [N, 3] to pixels [B, N, 2] (x, y from the upper left corner; pixel centres lie at k + 0.5) and
        depths [B, N] along the viewing axis. Points at or behind the camera have depth <= 0 and no meaningful pixel."""
        w2c = self.world_to_camera
        local = points @ w2c[:, :3, :3].transpose(1, 2) + w2c[:, None, :3, 3]
        depth = -local[..., 2]
        scale = self.focal[:, None, None] / torch.where(depth.abs() < 1e-9, 1e-9, depth)[..., None]
        flipped = local[..., :2] * local.new_tensor([1.0, -1.0])
        return flipped * scale + self.center[:, None], depth

    def rays(self) -> tuple[Tensor, Tensor]:
        """Ray origins and unit directions through pixel centres, both [B, H, W, 3]."""
        device, dtype = self.c2w.device, self.c2w.dtype
        xs = torch.arange(self.width, device=device, dtype=dtype) + 0.5
        ys = torch.arange(self.height, device=device, dtype=dtype) + 0.5
        focal, center = self.focal[:, None, None], self.center[:, :, None, None]
        x = ((xs[None, None, :] - center[:, 0]) / focal).expand(-1, self.height, -1)
        y = ((center[:, 1] - ys[None, :, None]) / focal).expand(-1, -1, self.width)
        local = torch.stack([x, y, -torch.ones_like(x)], -1)
        directions = torch.einsum("bij,bhwj->bhwi", self.c2w[:, :3, :3], local)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        origins = self.position[:, None, None, :].expand_as(directions)
        return origins, directions


@dataclass
class Render:
    """What a renderer saw.

    Attributes:
        rgb: [B, H, W, 3] in [0, 1], composited over the background.
        opacity: [B, H, W, 1] in [0, 1].
        depth: [B, H, W, 1] along the viewing axis, 0 where nothing was hit; None where the renderer gives none.
        normal: [B, H, W, 3] world-space, length <= 1 (weighted by opacity); None where not given.
        cameras: the cameras it was made from.
        extras: further signals by name (``weights``, ``latent``, ``orientation`` …).
    """

    rgb: Tensor
    opacity: Tensor
    cameras: Cameras
    depth: Tensor | None = None
    normal: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, index: slice | Tensor) -> Render:
        """Some of the pictures, without further signals."""
        depth = None if self.depth is None else self.depth[index]
        normal = None if self.normal is None else self.normal[index]
        return Render(self.rgb[index], self.opacity[index], self.cameras[index], depth, normal)


@dataclass(frozen=True, eq=False)
class Views:
    """Given pictures of one object and where they were taken from.

    Attributes:
        rgb: [V, H, W, 3] sRGB in [0, 1]; where the mask is 0 it means nothing.
        mask: [V, H, W, 1] coverage in [0, 1].
        cameras: V cameras of that size.
        nearness: [V, H, W, 1] larger where the surface is nearer, on any scale; None where nobody told.
        normal: [V, H, W, 3] world-space, unit; None where nobody told.
    """

    rgb: Tensor
    mask: Tensor
    cameras: Cameras
    nearness: Tensor | None = None
    normal: Tensor | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    def targets(self, chosen: Tensor, background: float) -> dict[str, Any]:
        """The pictures ``chosen`` [R] as a data source's batch: ``cameras``, ``target`` over a grey level, the maps."""
        maps = {"target-nearness": self.nearness, "target-normal": self.normal}
        told = {name: values[chosen] for name, values in maps.items() if values is not None}
        rgb, cameras = self.over(background)[chosen], self.cameras[chosen]
        return {"cameras": cameras, "target": rgb, "target-mask": self.mask[chosen], **told}

    def over(self, background: float | Tensor) -> Tensor:
        """[V, H, W, 3] the pictures over a grey level, or over colours that broadcast to theirs."""
        return self.rgb * self.mask + (1 - self.mask) * background

    def nearest(self, cameras: Cameras) -> Tensor:
        """[B] which picture was taken from the direction nearest to each camera's."""
        mine, theirs = self.cameras.c2w[:, :3, 2], cameras.c2w[:, :3, 2]
        return (theirs @ mine.to(theirs).T).argmax(1)


@dataclass(frozen=True)
class Condition:
    """What a prior is told, already embedded, one row per image.

    Attributes:
        text: [B, L, D] token states, or None.
        pooled: [B, D] one vector per text or class, or None.
        camera: [B, K] embedded viewpoint, or None.
        image: [B, ...] embedded or concatenated image, or None.
        extras: further tensors by name, first dimension B.
    """

    text: Tensor | None = None
    pooled: Tensor | None = None
    camera: Tensor | None = None
    image: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def cat(cls, parts: list[Condition]) -> Condition:
        """Stack conditions along the batch; all must hold the same fields (else TypeError).

        Texts of different lengths are repeated to a common one: cross-attention over repeated states answers the same.
        """

        def joined(name: str) -> Tensor | None:
            values = [getattr(p, name) for p in parts]
            if all(v is None for v in values):
                return None
            if name == "text" and all(v is not None for v in values):
                longest = math.lcm(*(v.shape[1] for v in values))
                values = [v if v.shape[1] == longest else v.repeat(1, longest // v.shape[1], 1) for v in values]
            return torch.cat(values)  # a field that only some have is a mistake in the caller: TypeError

        return cls(
            text=joined("text"),
            pooled=joined("pooled"),
            camera=joined("camera"),
            image=joined("image"),
            extras={k: torch.cat([p.extras[k] for p in parts]) for k in parts[0].extras},
        )


@dataclass
class Mesh:
    """A triangle mesh, with as much of its appearance as is known.

    Attributes:
        vertices: [V, 3] float.  faces: [F, 3] int64, counter-clockwise seen from outside.
        colors: [V, 3] sRGB in [0, 1], or None.
        normals: [V, 3] unit, or None.
        uv: [V, 2] in [0, 1], origin at the lower left, or None.
        texture: [T, T, 3] sRGB in [0, 1], row 0 at the top (v = 1), or None.
        roughness_metallic: [T, T, 2] in [0, 1], laid out as the texture, or None: a rough dielectric.
    """

    vertices: Tensor
    faces: Tensor
    colors: Tensor | None = None
    normals: Tensor | None = None
    uv: Tensor | None = None
    texture: Tensor | None = None
    roughness_metallic: Tensor | None = None

    def __repr__(self) -> str:
        shown = [f"{n}{list(v.shape)}" for n, v in vars(self).items() if v is not None]
        return f"Mesh({', '.join(shown)})"


@dataclass
class SplatStatistics:
    """What is known of each Gaussian's pictures since the set was last changed; added to in place.

    Attributes:
        gradient: [N] sum over views of the norm of the absolute gradient (over pixels) in its 2D mean, in units of half
            the picture's height.
        count: [N] views that may have shown it.  radius: [N] largest radius on screen as a share of the height.
    """

    gradient: Tensor
    count: Tensor
    radius: Tensor


@dataclass
class Splats:
    """A set of anisotropic Gaussians (Kerbl et al. 2023), as a renderer or an exporter wants them: activated values.

    Attributes:
        means: [N, 3] centres in world units.
        scales: [N, 3] standard deviations along the Gaussian's own axes, > 0, world units.
        rotations: [N, 4] unit quaternions, (w, x, y, z), own axes to world.
        opacities: [N] in [0, 1].
        sh: [N, K, 3] spherical-harmonic coefficients of the colour, K = (degree + 1)^2; the colour seen along a unit
            direction d is ``0.5 + sum_k sh_k Y_k(d)``, clamped below at 0.
        statistics: where a renderer's backward pass notes what the set is grown by; None: not asked for.
    """

    means: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    sh: Tensor
    statistics: SplatStatistics | None = None

    def __len__(self) -> int:
        return int(self.means.shape[0])


@dataclass
class Points:
    """A set of surface points.

    Attributes:
        positions: [N, 3] world units.  normals: [N, 3] unit, or None.  colors: [N, 3] sRGB in [0, 1], or None.
    """

    positions: Tensor
    normals: Tensor | None = None
    colors: Tensor | None = None


@dataclass
class DistanceGrid:
    """A signed distance on a grid over the scene's cube.

    Attributes:
        values: [R, R, R] world units, negative inside, indexed x, y, z from -bound to bound.
        bound: half the cube's side.
    """

    values: Tensor
    bound: float
