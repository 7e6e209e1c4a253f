"""The data stage: every training object as a fixed number of Gaussians, fitted to pictures of it and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from core.cache import cache_folder
from core.config.base import Config as BaseConfig
from core.errors import UserError
from core.kernels.splatting.pictures import draw
from core.types import Cameras
from plugins.gsd.tokens import PARTS, canonical, on_surface, splats_of

log = logging.getLogger("maquette")
BACKGROUND = 0.5
"""Grey level behind the objects, in training and in given pictures."""
CHUNK = 32
_VERSION = 1
_RATES = (0.3, 1.0, 1.0, 1.0, 2.0)
"""Learning rates of centre, scales, axes, colour and opacity, as shares of the whole one."""


class FitConfig(BaseConfig):
    """How objects become sets of Gaussians."""

    count: int = Field(default=128, ge=8)
    """Gaussians of each object."""
    steps: int = Field(default=30, ge=0)
    """Steps of Adam on pictures; 0 leaves the Gaussians as they were laid on the surface."""
    rate: float = Field(default=0.01, gt=0)
    """Learning rate; centres move at 0.3 of it."""
    views: int = Field(default=6, ge=1)
    """Pictures of each object."""
    size: int = Field(default=32, ge=8)
    """Side of the pictures in pixels."""


def around(views: int, size: int, turn: float = 0.0) -> Cameras:
    """Cameras evenly in azimuth, ``turn`` radians on, by turns from -5, 20 and 50 degrees above the horizon."""
    azimuth = torch.arange(views) * 2 * math.pi / views + turn
    tilt = torch.tensor([20.0, 50.0, -5.0]).deg2rad()[torch.arange(views) % 3]
    far, fov = torch.full((views,), 3.0), torch.full((views,), math.radians(40.0))
    return Cameras.orbit(azimuth, tilt, far, fov, size, size)


def mismatch(
    tokens: Tensor, cameras: Cameras, rgb: Tensor, mask: Tensor | None, weight: Tensor | None = None
) -> Tensor:
    """Sum over pixels of squared errors of a rendered set [N, 16], in colour and coverage, averaged over views.

    Args:
        rgb: [V, H, W, 3] over grey.  mask: [V, H, W, 1], or None.  weight: [V] of the views.
    """
    seen = draw(splats_of(tokens), cameras)
    error = (seen.rgb + (1 - seen.opacity) * BACKGROUND - rgb).square().sum(-1)
    if mask is not None:
        error = error + (seen.opacity - mask)[..., 0].square()
    total = error.sum((1, 2))
    return total.mean() if weight is None else (weight * total).sum() / weight.sum()


def fitted(
    tokens: Tensor,
    cameras: Cameras,
    rgb: Tensor,
    mask: Tensor | None,
    steps: int,
    rate: float,
    weight: Tensor | None = None,
) -> Tensor:
    """A set of Gaussians [N, 16] moved by Adam towards pictures; none is added, none removed."""
    parts = [p.detach().clone().requires_grad_() for p in tokens.split(PARTS, -1)]
    optimizer = torch.optim.Adam([{"params": [p], "lr": rate * r} for p, r in zip(parts, _RATES, strict=True)])
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            mismatch(torch.cat(parts, -1), cameras, rgb, mask, weight).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return canonical(torch.cat([p.detach() for p in parts], -1))


def fitted_sets(data: Any, fit: FitConfig, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """All objects of the data as Gaussians [objects, count, 16] and their classes [objects], on the CPU; made once, 32
    at a time, on ``device``.

    Raises:
        UserError: the data has too few points, or no pictures to fit to.
    """
    check(data, fit)
    folder = _folder(data, fit)
    folder.mkdir(parents=True, exist_ok=True)
    objects, made, labels = data.options.objects, [], []
    for first in range(0, objects, CHUNK):
        path = folder / f"{first:05d}.npz"
        index = torch.arange(first, min(first + CHUNK, objects))
        if not path.exists():
            log.info("fitting Gaussians to objects: %d of %d", first, objects)
            _keep(path, *fit_objects(data, fit, index, device))
        with np.load(path, allow_pickle=False) as stored:
            made.append(torch.from_numpy(stored["tokens"]))
            labels.append(torch.from_numpy(stored["label"]))
    return torch.cat(made), torch.cat(labels)


def check(data: Any, fit: FitConfig) -> None:
    """Refuse data that cannot be fitted.

    Raises:
        UserError: says why.
    """
    kept = getattr(data.options, "kept", 0)
    if not hasattr(data, "take") or not kept:
        raise UserError(
            f"data: gsd needs points on surfaces, not {type(data).__name__}; data=procedural-points has them"
        )
    if kept < fit.count:
        raise UserError(f"data.kept={kept} is too little: {fit.count} Gaussians (fit.count) start on different points")
    if fit.steps and not hasattr(data, "seen_from"):
        raise UserError(f"fit.steps={fit.steps}: {type(data).__name__} gives no pictures to fit to; set fit.steps=0")


def fit_objects(data: Any, fit: FitConfig, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Gaussians [B, count, 16] and classes [B] of the objects at ``index`` [B]."""
    whole = data.options.model_copy(update={"points": data.options.kept})
    source = type(data)(whole, data.context)
    source._pool = getattr(data, "_pool", None)
    batch = source.take(index, torch.Generator().manual_seed(0))
    tokens = on_surface(batch["points"], batch["normals"], batch["colors"], fit.count)
    if fit.steps:
        cameras = around(fit.views, fit.size)
        seen = data.seen_from(index, cameras)
        cameras, rows = cameras.to(device), []
        for one, rgb, mask in zip(tokens, seen["rgb"], seen["mask"], strict=True):
            start, wanted, covered = (x.to(device) for x in (one, rgb, mask[..., None]))
            rows.append(fitted(start, cameras, wanted, covered, fit.steps, fit.rate).cpu())
        tokens = torch.stack(rows)
    return tokens, batch.get("label", torch.zeros(len(index), dtype=torch.int64))


def _folder(data: Any, fit: FitConfig) -> Path:
    kind = {k: v for k, v in data.options.model_dump(mode="json").items() if k not in ("batch", "points")}
    told = {k: v for k, v in fit.model_dump().items() if fit.steps or k == "count"}
    key = json.dumps([_VERSION, type(data).__name__, kind, told, fit.steps])
    return cache_folder() / f"gaussians-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _keep(path: Path, tokens: Tensor, label: Tensor) -> None:
    partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(partial, tokens=tokens.numpy(), label=label.numpy())
    partial.replace(path)
