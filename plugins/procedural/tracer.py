"""A compiled CPU renderer of part unions: one object and one thread per image.

Each pixel tile keeps only the parts whose bounding sphere touches its cone; `casting` meets rays with those.

Shading is fixed in the world and independent of the view, so that a colour field can hold nearly all of it. It works
on sRGB-encoded values directly (no linear light): albedo * (0.55 + 0.35 (0.5 + 0.5 n_z) + 0.25 max(0, n.l)), times a
one-tap ambient occlusion, plus, for glossy and metal parts, highlights where the normal faces one of three lamps,
clipped to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from plugins.procedural.casting import cast, surface_normal
from plugins.procedural.parts import Packed, pack_batch
from plugins.procedural.sdf import kernel_arrays, union_distance

TILE = 8
OCCLUSION_REACH = 0.12
_NORM = math.sqrt(0.5**2 + 0.35**2 + 0.8**2)
LIGHT_X, LIGHT_Y, LIGHT_Z = 0.5 / _NORM, 0.35 / _NORM, 0.8 / _NORM
_LOW = math.sqrt(0.75**2 + 0.6**2 + 0.2**2)
FRONT_X, FRONT_Y, FRONT_Z = 0.75 / _LOW, 0.6 / _LOW, 0.2 / _LOW
BACK_X, BACK_Y, BACK_Z = -0.6 / _LOW, -0.75 / _LOW, 0.2 / _LOW
MATTE, GLOSSY, METAL = range(3)


@njit(cache=True, error_model="numpy")
def _shade(color: Any, material: int, n: Any, out: Any) -> None:
    """sRGB of a surface with world normal n, before occlusion."""
    facing = max(0.0, n[0] * LIGHT_X + n[1] * LIGHT_Y + n[2] * LIGHT_Z)
    light = 0.55 + 0.35 * (0.5 + 0.5 * n[2]) + 0.25 * facing
    glint, white = 0.0, 1.0
    if material != MATTE:
        # Two low lamps besides the key light, so that upright walls shine as well.
        front = max(0.0, n[0] * FRONT_X + n[1] * FRONT_Y + n[2] * FRONT_Z)
        back = max(0.0, n[0] * BACK_X + n[1] * BACK_Y + n[2] * BACK_Z)
        power = 24 if material == GLOSSY else 8
        glint = 0.45 * facing**power + 0.35 * front**power + 0.3 * back**power
        if material == METAL:
            # A dark body with broad highlights of its own colour is what reads as metal.
            light, glint, white = 0.7 * light, 1.4 * glint, 0.45
    for c in range(3):
        out[c] = color[c] * light + glint * (white + (1.0 - white) * color[c])


@njit(cache=True, error_model="numpy")
def _local_frames(at: Any, rotation: Any, low: int, high: int, c2w: Any, frames: Any) -> None:
    """Rows of 12: the eye, then the camera's x, y and z axes, all in each part's frame."""
    for i in range(low, high):
        m = rotation[i]
        ex, ey, ez = c2w[0, 3] - at[i, 0], c2w[1, 3] - at[i, 1], c2w[2, 3] - at[i, 2]
        for r in range(3):
            frames[i, r] = m[r] * ex + m[3 + r] * ey + m[6 + r] * ez
            for a in range(3):
                frames[i, 3 + 3 * a + r] = m[r] * c2w[0, a] + m[3 + r] * c2w[1, a] + m[6 + r] * c2w[2, a]


@njit(cache=True, error_model="numpy")
def _order(at: Any, bound: Any, low: int, high: int, c2w: Any, spheres: Any, order: Any) -> None:
    """Bounding spheres in camera space (x, y, depth, radius) and the parts sorted by nearest depth, front first."""
    for i in range(low, high):
        ex, ey, ez = at[i, 0] - c2w[0, 3], at[i, 1] - c2w[1, 3], at[i, 2] - c2w[2, 3]
        spheres[i, 0] = ex * c2w[0, 0] + ey * c2w[1, 0] + ez * c2w[2, 0]
        spheres[i, 1] = ex * c2w[0, 1] + ey * c2w[1, 1] + ez * c2w[2, 1]
        spheres[i, 2] = -(ex * c2w[0, 2] + ey * c2w[1, 2] + ez * c2w[2, 2])
        spheres[i, 3] = bound[i]
        n = i - low
        while n > 0 and spheres[order[n - 1], 2] - spheres[order[n - 1], 3] > spheres[i, 2] - bound[i]:
            order[n] = order[n - 1]
            n -= 1
        order[n] = i


@njit(cache=True, error_model="numpy")
def _cull(
    spheres: Any, order: Any, parts: int, x0: float, x1: float, y0: float, y1: float, alive: Any
) -> int:
    """Keep the parts whose bounding sphere touches the cone about the tile [x0, x1] x [y0, y1] on the plane z = -1."""
    mx, my = 0.5 * (x0 + x1), 0.5 * (y0 + y1)
    length = math.sqrt(mx * mx + my * my + 1.0)
    ux, uy, uz = mx / length, my / length, 1.0 / length
    cosine = 1.0
    for corner in range(4):
        cx, cy = (x0 if corner % 2 == 0 else x1), (y0 if corner < 2 else y1)
        cosine = min(cosine, (cx * ux + cy * uy + uz) / math.sqrt(cx * cx + cy * cy + 1.0))
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    count = 0
    for n in range(parts):
        i = order[n]
        s = spheres[i]
        along = s[0] * ux + s[1] * uy + s[2] * uz
        aside = math.sqrt(max(0.0, s[0] * s[0] + s[1] * s[1] + s[2] * s[2] - along * along))
        if aside * cosine - along * sine <= s[3] and along > -s[3]:
            alive[count] = i
            count += 1
    return count


@njit(cache=True, error_model="numpy")
def _occlusion(
    kind: Any, size: Any, at: Any, rotation: Any, bound: Any, low: int, high: int, c2w: Any, ray: Any, n: Any
) -> float:
    """One tap: how much of OCCLUSION_REACH above the surface is free, as a factor in [0.6, 1]; ray = (x, y, depth)."""
    x, y, t, h = ray[0] * ray[2], ray[1] * ray[2], ray[2], OCCLUSION_REACH
    px = c2w[0, 3] + x * c2w[0, 0] + y * c2w[0, 1] - t * c2w[0, 2] + h * n[0]
    py = c2w[1, 3] + x * c2w[1, 0] + y * c2w[1, 1] - t * c2w[1, 2] + h * n[1]
    pz = c2w[2, 3] + x * c2w[2, 0] + y * c2w[2, 1] - t * c2w[2, 2] + h * n[2]
    free, _ = union_distance(kind, size, at, rotation, bound, low, high, px, py, pz)
    return 0.6 + 0.4 * min(max(free / h, 0.0), 1.0)


@njit(cache=True, error_model="numpy")
def _resolve(
    depths: Any,
    hits: Any,
    normals: Any,
    shades: Any,
    factor: float,
    background: Any,
    outs: Any,
    b: int,
    r: int,
    c: int,
) -> None:
    """Average a pixel's samples: colour over all, depth and normal over those on the nearest sample's part."""
    rgb, depth, normal, mask = outs
    total = hits.shape[0]
    front = np.argmin(depths)
    covered, same, t = 0, 0, 0.0
    r0, r1, r2, n0, n1, n2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(total):
        if hits[s] < 0:
            continue
        covered += 1
        r0 += min(1.0, factor * shades[s, 0])
        r1 += min(1.0, factor * shades[s, 1])
        r2 += min(1.0, factor * shades[s, 2])
        if hits[s] == hits[front]:
            same += 1
            t += depths[s]
            n0, n1, n2 = n0 + normals[s, 0], n1 + normals[s, 1], n2 + normals[s, 2]
    away = total - covered
    rgb[b, r, c, 0] = (r0 + away * background[0]) / total
    rgb[b, r, c, 1] = (r1 + away * background[1]) / total
    rgb[b, r, c, 2] = (r2 + away * background[2]) / total
    if covered:
        scale = 1.0 / max(math.sqrt(n0 * n0 + n1 * n1 + n2 * n2), 1e-12)
        depth[b, r, c] = t / same
        normal[b, r, c, 0], normal[b, r, c, 1], normal[b, r, c, 2] = n0 * scale, n1 * scale, n2 * scale
        mask[b, r, c] = covered / total


@njit(cache=True, error_model="numpy")
def _image(
    arrays: Any,
    half: Any,
    color: Any,
    material: Any,
    span: Any,
    c2w: Any,
    view: Any,
    background: Any,
    outs: Any,
    b: int,
) -> None:
    """Render image b of parts span[0]..span[1]-1; view = (tan half fov x, tan half fov y, samples per axis)."""
    kind, size, at, rotation, bound = arrays
    low, high = span
    tan_x, tan_y, samples = view
    height, width = outs[1].shape[1], outs[1].shape[2]
    frames, spheres = np.empty((high, 12)), np.empty((high, 4))
    order, alive = np.empty(high - low, np.int32), np.empty(high - low, np.int32)
    _local_frames(at, rotation, low, high, c2w, frames)
    _order(at, bound, low, high, c2w, spheres, order)
    total = samples * samples
    depths, hits, ray = np.empty(total), np.empty(total, np.int32), np.empty(3)
    normals, shades = np.empty((total, 3)), np.empty((total, 3))
    dx, dy = 2.0 * tan_x / width, 2.0 * tan_y / height
    for row0 in range(0, height, TILE):
        for col0 in range(0, width, TILE):
            row1, col1 = min(height, row0 + TILE), min(width, col0 + TILE)
            count = _cull(
                spheres, order, high - low,
                col0 * dx - tan_x, col1 * dx - tan_x, tan_y - row1 * dy, tan_y - row0 * dy, alive,
            )  # fmt: skip
            for r in range(row0, row1):
                for c in range(col0, col1):
                    factor = -1.0
                    for s in range(total):
                        x = (c + (s % samples + 0.5) / samples) * dx - tan_x
                        y = tan_y - (r + (s // samples + 0.5) / samples) * dy
                        depths[s], hits[s] = cast(kind, size, half, frames, alive, count, x, y)
                        i = hits[s]
                        if i >= 0:
                            surface_normal(
                                kind[i], size[i], rotation[i], frames[i], depths[s], x, y, normals[s]
                            )
                            _shade(color[i], material[i], normals[s], shades[s])
                            if factor < 0.0:
                                ray[0], ray[1], ray[2] = x, y, depths[s]
                                factor = _occlusion(
                                    kind, size, at, rotation, bound, low, high, c2w, ray, normals[s]
                                )
                    _resolve(depths, hits, normals, shades, factor, background, outs, b, r, c)


def _images(
    arrays: Any,
    half: Any,
    color: Any,
    material: Any,
    start: Any,
    owner: Any,
    c2w: Any,
    view: Any,
    back: Any,
    outs: Any,
) -> None:
    for b in prange(owner.shape[0]):
        k = owner[b]
        _image(arrays, half, color, material, (start[k], start[k + 1]), c2w[b], view, back, outs, b)


# Without the interpreter lock a prefetching thread renders while the main one trains.
_images_serial = njit(cache=True, error_model="numpy", nogil=True)(_images)
_images_parallel = njit(cache=True, error_model="numpy", parallel=True)(_images)


def _joined(objects: Any) -> Packed:
    if isinstance(objects, dict):
        return objects if "start" in objects else pack_batch([objects])
    return pack_batch([one if isinstance(one, dict) else one.packed for one in objects])


def render(
    objects: Any,
    c2w: NDArray[Any],
    fov_y: float,
    height: int,
    width: int,
    samples: int = 2,
    background: Sequence[float] = (0.5, 0.5, 0.5),
    owner: NDArray[Any] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Pictures of objects, float32.

    objects: a packed object, a packed batch (`parts.pack_batch`), or a sequence of packed dicts or of things with a
    `.packed`. c2w [B,4,4]: OpenGL camera to world, eye outside the object. fov_y: vertical field of view, radians.
    samples: rays per pixel axis. background: sRGB. owner [B]: which object each image shows; by default image b shows
    object b, or the only one.

    Returns rgb [B,H,W,3] sRGB in [0, 1] over the background; depth [B,H,W] along the camera's -z axis, 0 where missed;
    normal [B,H,W,3] world, unit, 0 where missed; mask [B,H,W] coverage in [0, 1]. In a pixel of several parts depth and
    normal are those of the part in front. Raises ValueError when images and objects do not match.
    """
    joined = _joined(objects)
    c2w = np.ascontiguousarray(c2w, np.float64).reshape(-1, 4, 4)
    images, have = len(c2w), len(joined["start"]) - 1
    if owner is None:
        if have not in (1, images):
            raise ValueError(f"{have} objects for {images} cameras; give one object, as many, or `owner`")
        owner = np.zeros(images, np.int32) if have == 1 else np.arange(images)
    owner = np.ascontiguousarray(owner, np.int32)
    if owner.shape != (images,) or images and not (owner.min() >= 0 and owner.max() < have):
        raise ValueError(f"`owner` must hold {images} object indices below {have}")
    rgb, normal = (np.zeros((images, height, width, 3), np.float32) for _ in range(2))
    depth, mask = (np.zeros((images, height, width), np.float32) for _ in range(2))
    tan_y = math.tan(0.5 * fov_y)
    # One thread needs no thread pool, and a pool does not survive a fork.
    kernel = _images_serial if get_num_threads() == 1 or images == 1 else _images_parallel
    kernel(
        kernel_arrays(joined), joined["half"].astype(np.float64), joined["color"].astype(np.float64),
        joined["material"], joined["start"], owner, c2w, (tan_y * width / height, tan_y, int(samples)),
        np.asarray(background, np.float64), (rgb, depth, normal, mask),
    )  # fmt: skip
    return {"rgb": rgb, "depth": depth, "normal": normal, "mask": mask}
