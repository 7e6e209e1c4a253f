"""What passes between a denoiser that renders and its scenes: sets of views, codes, and the look that codes fill."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from core.diffusion.process import DiffusionProcess
from core.types import Cameras

Code = dict[str, Tensor]
"""Parameters of the geometry by name: one scene."""
_TIMESTEPS = 1000


@dataclass(frozen=True)
class Seen:
    """What the network looks at: B scenes of V views.

    Attributes:
        rgb: [B, V, 3, S, S] in [-1, 1], noisy or clean.
        t: [B, V] int64 timesteps; 0 says that a view is clean.
        cameras: B V cameras, scene by scene.
        guess: [B, V, 3, S, S] what an earlier pass answered; 0 where there was none.
    """

    rgb: Tensor
    t: Tensor
    cameras: Cameras
    guess: Tensor

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class Known:
    """Pixels of noisy views that sampling must keep: ``rgb`` [B, V, 3, S, S] where ``mask`` [B, V, 1, S, S] is 1."""

    rgb: Tensor
    mask: Tensor


def cosine_process() -> DiffusionProcess:
    """1000 steps of the cosine schedule (Nichol & Dhariwal 2021); the network answers with x0."""
    scheduler = DDIMScheduler(_TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    return DiffusionProcess.from_scheduler(scheduler)


def side_by_side(parts: Sequence[Cameras], scenes: int) -> Cameras:
    """The views of ``scenes`` scenes, of which each part has some, scene by scene."""
    c2w = torch.cat([p.c2w.unflatten(0, (scenes, -1)) for p in parts], 1).flatten(0, 1)
    fov = torch.cat([p.fov_y.unflatten(0, (scenes, -1)) for p in parts], 1).flatten()
    return replace(parts[0], c2w=c2w, fov_y=fov, principal=None)


class Look(nn.Module):
    """Geometry and material as one field, whose geometry's parameters are exchanged from scene to scene."""

    def __init__(self, geometry: Any, material: Any) -> None:
        super().__init__()
        self.geometry, self.material = geometry, material

    def __deepcopy__(self, memo: dict[int, Any]) -> Look:
        for part in (self.geometry, self.material):
            memo[id(part.context)] = part.context  # where it lives, not what it is
        return Look(copy.deepcopy(self.geometry, memo), copy.deepcopy(self.material, memo))

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        found = self.geometry.field(points)
        return found["density"], self.material(found["features"], points, directions, None)
