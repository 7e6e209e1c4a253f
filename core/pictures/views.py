"""Pictures as :class:`~core.types.Views`: the object alone, framed as the priors know it, with its camera."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import UserError
from core.pictures.framing import around_object, around_picture, bounding_box, cut
from core.pictures.masking import BackgroundRemoval, object_mask
from core.pictures.matting import cleaned
from core.pictures.poses import Posed, orbit, read_poses
from core.pictures.reading import Picture, read_map, read_picture
from core.types import Cameras, Views

__all__ = ["FRAME", "BackgroundRemoval", "read_views"]

log = logging.getLogger("maquette")

FRAME = 0.75
"""The share of the frame that the longer side of a procedural object's bounding box takes, seen at 40 degrees from
distance 3: 0.77 in the median, 0.59 to 0.83 for the middle four fifths."""
_POSE_SUFFIXES = (".json", ".yaml", ".yml")
_LEAST_PIXELS = 4
Angles = float | Sequence[float]


def read_views(
    image: Path | Sequence[Path], *, mask: Path | None = None, elevation: Angles = 0.0, azimuth: Angles = 0.0,
    fov: float = 40.0, distance: float = 3.0, size: int = 256, background_removal: BackgroundRemoval = "auto",
    frame: float | None = FRAME, depth: Path | None = None, normals: Path | None = None,
) -> Views:  # fmt: skip
    """Read one picture, or several whose cameras are known.

    Args:
        image: a picture; a list of them; or a folder with, or a path of, a pose file (see :mod:`core.pictures.poses`).
        mask: a picture of the same size that is bright where the object is; for a single picture only.
        elevation, azimuth: degrees; one each per picture of a list. A pose file's own go before these.
        fov: vertical field of view in degrees.  distance: world units, to the origin.
        size: side of the square views in pixels.
        background_removal: ``auto`` takes real alpha, else rembg where it and its weights are on disk, else the
            classical method; the others name one way; ``none`` takes the whole picture as object.
        frame: a single picture is cut so that the longer side of the object's bounding box takes this share in (0, 1];
            None keeps it as framed, padded to a square. Several pictures keep their framing, which their cameras tell.
        depth: a picture of the same size that is brighter where the surface is nearer; for a single picture only.
        normals: a normal map of the same size in the camera's axes (x right, y up, z to the viewer); likewise.

    Returns:
        Views whose colours continue over the object's edges, so that no old background shows.

    Raises:
        UserError: a file cannot be used, a pose has no sense, or no object was found; one sentence that says which.
    """
    if size < 8:
        raise UserError(f"the size of the views is {size} pixels; it needs at least 8")
    if frame is not None and not 0 < frame <= 1:
        raise UserError(f"the object's share of the frame is {frame:g}, but must lie in 0 to 1")
    posed, single = _listed(image, elevation, azimuth, fov, distance)
    if mask is not None and not single:
        raise UserError("a mask can be given for a single picture only; give several pictures with transparency")
    if not single and (depth or normals):
        raise UserError("a depth or normal map can be given for a single picture only")
    maps = [(path, what) for path, what in ((depth, "depth map"), (normals, "normal map")) if path is not None]
    made = [_view(p, mask, size, background_removal, frame if single else None, maps) for p in posed]
    rgb, cover, angle, told = zip(*made, strict=True)
    cameras = Cameras(torch.stack([p.c2w for p in posed]), torch.tensor(angle), size, size)
    nearness, normal = told[0].get("depth map"), told[0].get("normal map")
    if normal is not None:  # from the camera's axes to the world's
        normal = F.normalize((normal * 2 - 1) @ cameras.c2w[0, :3, :3].T, dim=-1)[None]
    if nearness is not None:
        nearness = nearness.mean(-1, keepdim=True)[None]
    return Views(torch.stack(rgb), torch.stack(cover), cameras, nearness, normal)


def is_single(path: Path) -> bool:
    """Whether a path names one picture, rather than a folder or a pose file of several."""
    return not path.is_dir() and path.suffix.lower() not in _POSE_SUFFIXES


def _listed(
    image: Path | Sequence[Path], elevation: Angles, azimuth: Angles, fov: float, distance: float
) -> tuple[list[Posed], bool]:
    """The pictures with their cameras, and whether it is a single one."""
    fixed = {"fov": fov, "distance": distance}
    if isinstance(image, (str, Path)):
        path = Path(image).expanduser()
        if not is_single(path):
            return read_poses(path, fixed), False
        if not isinstance(elevation, (int, float)) or not isinstance(azimuth, (int, float)):
            raise UserError("one picture takes one elevation and one azimuth")
        return [orbit(path, {**fixed, "elevation": elevation, "azimuth": azimuth}, str(path))], True
    paths = [Path(p).expanduser() for p in image]
    if not paths:
        raise UserError("no picture was given")
    angles = {}
    for name, given in {"elevation": elevation, "azimuth": azimuth}.items():
        angles[name] = list(given) if isinstance(given, Sequence) else [given] * len(paths)
        if len(angles[name]) != len(paths):
            raise UserError(f"{len(paths)} pictures were given, but {len(angles[name])} numbers for {name}")
    rows = zip(paths, angles["elevation"], angles["azimuth"], strict=True)
    return [orbit(p, {**fixed, "elevation": e, "azimuth": a}, str(p)) for p, e, a in rows], len(paths) == 1


def _view(
    posed: Posed, mask: Path | None, size: int, way: BackgroundRemoval, frame: float | None,
    maps: Sequence[tuple[Path, str]] = (),
) -> tuple[Tensor, Tensor, float, dict[str, Tensor]]:  # fmt: skip
    """rgb [S, S, 3], mask [S, S, 1], the vertical field of view in radians of the square that was cut, and the same
    square of the ``maps`` [S, S, 3] (files and what they are)."""
    picture = read_picture(posed.path)
    cover, straight = object_mask(picture, mask, way)
    _check_object(picture, cover, frame, size)
    height, width = cover.shape
    square = around_picture(cover.shape) if frame is None else around_object(cover, frame)
    told = {what: torch.from_numpy(cut(read_map(path, what, picture), cover, square, size)[0]) for path, what in maps}
    rgb, cover = cut(cleaned(picture.rgb, cover, straight), cover, square, size)
    angle = math.radians(posed.fov)
    if frame is None:  # the focal length stays, whatever is padded
        given = width if posed.horizontal else height
        angle = 2 * math.atan(math.tan(angle / 2) * square[2] / given)
    return torch.from_numpy(rgb), torch.from_numpy(np.ascontiguousarray(cover))[..., None], angle, told


def _check_object(picture: Picture, cover: np.ndarray, frame: float | None, size: int) -> None:
    if not (cover > 0.5).any():
        raise UserError(f"{picture.path}: the mask is empty, so there is no object to see")
    left, top, right, bottom = bounding_box(cover)
    longer = max(right - left, bottom - top)
    if longer < _LEAST_PIXELS:
        raise UserError(f"{picture.path}: the object is {longer} pixels in size; it needs at least {_LEAST_PIXELS}")
    if frame is not None and longer * 4 < frame * size:
        log.warning("%s: the object is only %d pixels in size; it will be blurred", picture.path, longer)
    full = cover.min() > 0.5
    if not full and (left == 0 or top == 0 or right == cover.shape[1] or bottom == cover.shape[0]):
        log.warning("%s: the object touches the edge of the picture; what is cut off cannot be seen", picture.path)
