"""Unseen objects of which one picture is given: what evaluations from pictures start from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError
from core.types import Cameras, Views
from plugins.metrics.folders import read_yaml

ELEVATION = 20.0
SIZE = 64


@dataclass(frozen=True)
class Given:
    """A true object and where the one picture of it is taken from."""

    label: str
    azimuth: float  # degrees
    source: Any

    def views(self) -> Views:
        """The picture, with its exact mask."""
        rgb, mask = self.seen([0.0])
        return Views(rgb, mask, self.cameras([0.0]))

    def cameras(self, turns: list[float], size: int = SIZE) -> Cameras:
        """At ``turns`` degrees round from the given picture, at its elevation."""
        azimuth = torch.tensor([self.azimuth + turn for turn in turns]).deg2rad()
        return Cameras.turntable(azimuth, math.radians(ELEVATION), size)

    def seen(self, turns: list[float], size: int = SIZE) -> tuple[Tensor, Tensor]:
        """True pictures [V, S, S, 3] over grey and masks [V, S, S, 1]."""
        rgb, mask = self.source.seen_from(self.cameras(turns, size))
        return rgb, mask

    def write(self, folder: Path) -> Path:
        """The picture as a user would have it: 256 pixels, transparent round the object."""
        from PIL import Image

        rgb, mask = self.seen([0.0], 256)
        colors = (rgb - 0.5 * (1 - mask)) / mask.clamp(min=1e-3)
        rgba = torch.cat([colors.clamp(0, 1), mask], -1)[0]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.label.replace(' ', '-')}.png"
        Image.fromarray((rgba * 255).round().byte().numpy()).save(path)
        return path


def given_objects(file: Path | None, count: int, kinds: set[str] | None = None) -> list[Given]:
    """The objects of a YAML file, the shipped one by default; ``count`` of them, 0 for all.

    Args:
        kinds: leave out objects of other kinds, and take those under ``more`` too.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    file = file or Path(__file__).with_name("image.yaml")
    read = read_yaml(file)
    listed = read.get("objects") if isinstance(read, dict) else None
    if not isinstance(listed, list) or not all(isinstance(o, dict) and "azimuth" in o for o in listed):
        raise UserError(f"{file} must hold a list 'objects' of mappings, each with its azimuth")
    if kinds is not None:
        listed = [one for one in [*listed, *read.get("more", [])] if one["category"] in kinds]
    source = get_registry().find("data", "procedural-views").load()
    made = []
    for one in listed[: count or None]:
        what = {k: v for k, v in one.items() if k != "azimuth"}
        label = f"{one.get('color') or ''} {one['category']}".replace("natural ", "").strip()
        made.append(Given(label, float(one["azimuth"]), source(source.Config(**what, size=SIZE), Context())))
    return made
