"""Several pictures of one object and where each was taken from, as files tell it.

Two forms, as JSON or YAML; file names are relative to the file itself:

* ``cameras.json``: ``{"fov": 40, "distance": 3, "views": [{"file": "front.png", "azimuth": 0, "elevation": 20}, …]}``.
  Degrees and world units; ``fov`` (vertical), ``distance``, ``azimuth`` and ``elevation`` may stand in a view, or above
  for all of them.
* ``transforms.json`` of NeRF-synthetic (Mildenhall et al. 2020): ``camera_angle_x``, the horizontal field of view in
  radians, and ``frames`` with ``file_path`` (``.png`` may be left out) and ``transform_matrix``, camera to world with
  OpenGL axes and z up.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from core.errors import UserError
from core.types import Cameras

POSE_FILES = ("cameras.json", "cameras.yaml", "transforms.json", "transforms_train.json")
_FORMS = "expected 'views' (file, azimuth, elevation), or 'camera_angle_x' and 'frames' as NeRF-synthetic has them"
_LIMITS = {"azimuth": (-720.0, 720.0), "elevation": (-90.0, 90.0), "fov": (1.0, 150.0), "distance": (0.01, 1000.0)}


@dataclass(frozen=True)
class Posed:
    """One picture file and its camera.

    Attributes:
        path: of the picture.  c2w: [4, 4] camera to world.
        fov: of the picture, degrees.  horizontal: whether ``fov`` is across instead of along the height.
    """

    path: Path
    c2w: Tensor
    fov: float
    horizontal: bool = False


def checked_pose(values: dict[str, Any], where: str) -> dict[str, float]:
    """``azimuth``, ``elevation``, ``fov`` (degrees) and ``distance`` (world units) as numbers within reason.

    Raises:
        UserError: one is no number, not finite, or out of its range; ``where`` says whose.
    """
    made = {}
    for name, (low, high) in _LIMITS.items():
        made[name] = number = _number(values[name], f"{where}: {name}")
        if not low <= number <= high:
            raise UserError(f"{where}: {name} is {number:g}, but must lie in {low:g} to {high:g}")
    return made


def orbit(path: Path, values: dict[str, Any], where: str) -> Posed:
    """A picture whose camera looks at the origin from ``azimuth``, ``elevation`` and ``distance``."""
    pose = checked_pose(values, where)
    azimuth, elevation = (torch.tensor([math.radians(pose[n])]) for n in ("azimuth", "elevation"))
    cameras = Cameras.orbit(azimuth, elevation, torch.tensor([pose["distance"]]), torch.ones(1), 1, 1)
    return Posed(path, cameras.c2w[0], pose["fov"])


def read_poses(source: Path, defaults: dict[str, float]) -> list[Posed]:
    """The pictures and cameras of a pose file, or of a folder that holds one (``POSE_FILES``).

    Args:
        defaults: ``fov`` and ``distance`` where neither a view nor the file gives them.

    Raises:
        UserError: no pose file, none of the two forms, a picture that is missing, or a value without sense.
    """
    file = _pose_file(source) if source.is_dir() else source
    content = _content(file)
    frames, views = content.get("frames"), content.get("views")
    if isinstance(frames, list) and frames and "camera_angle_x" in content:
        fov = math.degrees(_number(content["camera_angle_x"], f"{file}: camera_angle_x"))
        _within(fov, "camera_angle_x", "degrees", file)
        return [_frame(frame, fov, n, file) for n, frame in enumerate(frames)]
    if isinstance(views, list) and views:
        return [_view(view, {**defaults, **content}, n, file) for n, view in enumerate(views)]
    raise UserError(f"{file} lists no pictures: {_FORMS}")


def _pose_file(folder: Path) -> Path:
    for name in POSE_FILES:
        if (folder / name).is_file():
            return folder / name
    kinds = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp"}
    if not any(p.suffix.lower() in kinds for p in folder.iterdir()):
        raise UserError(f"the folder {folder} holds no pictures")
    raise UserError(f"the folder {folder} holds pictures but no cameras.json (or transforms.json) that says from where")


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} lists no pictures: {_FORMS}")
    return content


def _view(view: Any, above: dict[str, Any], n: int, file: Path) -> Posed:
    where = f"{file}, view {n}"
    if not isinstance(view, dict) or not isinstance(view.get("file"), str):
        raise UserError(f"{where}: 'file' is missing")
    if unknown := set(view) - {"file", *_LIMITS}:
        raise UserError(f"{where}: '{min(unknown, key=str)}' is not known; there are file, {', '.join(_LIMITS)}")
    values = {name: view.get(name, above.get(name)) for name in _LIMITS}
    if absent := [name for name, value in values.items() if value is None]:
        raise UserError(f"{where}: {' and '.join(absent)} of {view['file']} is missing")
    return orbit(_found(file.parent / view["file"], where), values, where)


def _frame(frame: Any, fov: float, n: int, file: Path) -> Posed:
    where = f"{file}, frame {n}"
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise UserError(f"{where}: 'file_path' is missing")
    rows = frame.get("transform_matrix")
    shaped = isinstance(rows, list) and len(rows) == 4 and all(isinstance(r, list) and len(r) == 4 for r in rows)
    if not shaped:
        raise UserError(f"{where}: 'transform_matrix' is no 4 x 4 matrix")
    numbers = [[_number(v, f"{where}: transform_matrix") for v in row] for row in rows or []]
    c2w = torch.tensor(numbers, dtype=torch.float64)
    turn, last = c2w[:3, :3], c2w.new_tensor([0.0, 0.0, 0.0, 1.0])
    rigid = (turn @ turn.T - torch.eye(3, dtype=c2w.dtype)).abs().max() < 1e-2 and torch.det(turn) > 0
    if not rigid or (c2w[3] - last).abs().max() > 1e-6:
        raise UserError(f"{where}: 'transform_matrix' is no rotation with a position (camera to world, OpenGL axes)")
    _within(float(c2w[:3, 3].norm()), "distance", "from the origin", file, where)
    return Posed(_found(file.parent / frame["file_path"], where), c2w.float(), fov, horizontal=True)


def _within(value: float, name: str, unit: str, file: Path, where: str = "") -> None:
    low, high = _LIMITS["fov" if name == "camera_angle_x" else name]
    if not low <= value <= high:
        raise UserError(f"{where or file}: {name} is {value:g} {unit}, but must lie in {low:g} to {high:g}")


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{what} is '{value}', not a number")
    if not math.isfinite(value):
        raise UserError(f"{what} is {value}, not a finite number")
    return float(value)


def _found(path: Path, where: str) -> Path:
    for candidate in (path, path.with_name(path.name + ".png")):
        if candidate.is_file():
            return candidate
    raise UserError(f"{where}: there is no picture {path}")
