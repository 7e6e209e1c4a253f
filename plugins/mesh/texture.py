"""What is learned on a mesh: a field of the position, or a picture in its UVs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Context, Geometry
from core.errors import UserError
from core.fields import HashField
from core.meshing.sampling import sample_surface
from core.meshing.takeover import Painted
from core.meshing.texture import bake
from core.meshing.unwrap import Unwrapped
from core.types import Mesh

FIT_STEPS = 200
FIT_POINTS = 1 << 16
FIT_BATCH = 1 << 13


def inverse_sigmoid(colors: Tensor) -> Tensor:
    """Features that materials turn into ``colors``, sRGB in [0, 1]."""
    return torch.logit(colors.clamp(0.02, 0.98))


class FieldTexture(HashField):
    """[N, channels] features of a hash-encoded network at surface points."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context, "mesh-texture")

    def forward(self, points: Tensor, uv: Tensor | None) -> Tensor:
        return self.raw(points)[:, 1:]

    def take(self, mesh: Mesh, colors: Painted) -> None:
        """Fit to colours on the surface."""
        random = self.context.generator("mesh-colors")
        points = sample_surface(mesh, FIT_POINTS, random)
        assert points.normals is not None
        wanted = inverse_sigmoid(colors(points.positions, points.normals, None)).to(self.table.device)
        places = points.positions.to(self.table.device)
        groups = [{"params": g["params"], "lr": 0.02 * g.get("lr_scale", 1.0)} for g in self.param_groups()]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        for _ in range(FIT_STEPS):
            part = torch.randint(FIT_POINTS, (FIT_BATCH,), generator=random).to(places.device)
            with torch.enable_grad():
                apart = (self(places[part], None)[:, :3] - wanted[part]).square().mean()
                optimizer.zero_grad()
                apart.backward()
            optimizer.step()
        self.zero_grad(set_to_none=True)


class ImageTexture(Geometry):
    """[N, channels] features looked up bilinearly in a picture; UVs outside [0, 1] repeat it."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.picture = nn.Parameter(torch.zeros(options.channels, options.texture_size, options.texture_size))

    def forward(self, points: Tensor, uv: Tensor | None) -> Tensor:
        if uv is None:
            raise UserError("a texture picture needs UVs, and whoever draws this mesh gave none")
        uv = torch.where((uv < 0) | (uv > 1), uv - uv.floor(), uv)
        grid = uv * uv.new_tensor([2.0, -2.0]) + uv.new_tensor([-1.0, 1.0])
        seen = F.grid_sample(
            self.picture[None], grid[None, None].to(self.picture), padding_mode="border", align_corners=False
        )
        return seen[0, :, 0].T

    def take(self, mesh: Mesh, colors: Painted) -> None:
        """Paint the picture with colours on the surface."""
        assert mesh.normals is not None and mesh.uv is not None
        arrays = [t.detach().cpu().numpy() for t in (mesh.vertices, mesh.normals, mesh.uv, mesh.faces)]
        size = self.picture.shape[-1]
        painted = torch.from_numpy(bake(colors.arrays, None, colors.surface, Unwrapped(*arrays), size, own=True))
        with torch.no_grad():
            self.picture[:3] = inverse_sigmoid(painted).movedim(-1, 0)[: self.picture.shape[0]].to(self.picture)
