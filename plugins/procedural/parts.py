"""The scene language: an object is a list of coloured primitive parts, joined by a hard union.

Lengths are in object units, angles in degrees, colours sRGB in [0, 1]. Axes are right-handed with z up, and objects
face +x. `pack` turns a list of parts into the flat arrays the compiled kernels read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vec3 = Sequence[float]
Tuple3 = tuple[float, float, float]
Rotation = tuple[float, float, float, float, float, float, float, float, float]
Packed = dict[str, NDArray[Any]]

SHAPES = ("sphere", "ellipsoid", "box", "cone", "round_cone", "torus", "tube", "prism")
SPHERE, ELLIPSOID, BOX, CONE, ROUND_CONE, TORUS, TUBE, PRISM = range(len(SHAPES))
MATERIALS = ("matte", "glossy", "metal")
IDENTITY: Rotation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Part:
    """One primitive.

    shape: one of SHAPES. size: four numbers whose meaning depends on the shape (see the constructors); `at`: the local
    origin in object space; rotation: row-major 3x3, local to object; color: sRGB in [0, 1]; material: one of MATERIALS.
    """

    shape: str
    size: tuple[float, float, float, float]
    at: Tuple3
    rotation: Rotation
    color: Tuple3
    material: str = "matte"

    def transformed(self, offset: Vec3, scale: float) -> Part:
        """The part after x -> (x + offset) * scale, scale > 0."""
        a, b, c, d = self.size
        # A torus keeps its arc, an angle, in the third slot.
        size = (a * scale, b * scale, c if self.shape == "torus" else c * scale, d * scale)
        x, y, z = self.at
        at = ((x + offset[0]) * scale, (y + offset[1]) * scale, (z + offset[2]) * scale)
        return replace(self, size=size, at=at)

    def turned(self, yaw: float) -> Part:
        """The part after a turn about the z axis, radians, from x towards y."""
        c, s = math.cos(yaw), math.sin(yaw)
        (x, y, z), m = self.at, self.rotation
        top = tuple(c * a - s * b for a, b in zip(m[:3], m[3:6], strict=True))
        low = tuple(s * a + c * b for a, b in zip(m[:3], m[3:6], strict=True))
        return replace(self, at=(c * x - s * y, s * x + c * y, z), rotation=(*top, *low, *m[6:]))  # type: ignore[arg-type]


def _triple(values: Vec3) -> Tuple3:
    x, y, z = values
    return float(x), float(y), float(z)


def rotation_xyz(rotate: Vec3) -> Rotation:
    """Row-major 3x3 of turns about x, then y, then z (degrees, about the fixed axes): Rz Ry Rx."""
    if not any(rotate):
        return IDENTITY
    rx, ry, rz = (math.radians(float(angle)) for angle in rotate)
    cx, sx, cy, sy, cz, sz = (
        math.cos(rx),
        math.sin(rx),
        math.cos(ry),
        math.sin(ry),
        math.cos(rz),
        math.sin(rz),
    )
    return (
        cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx,
        sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx,
        -sy, cy * sx, cy * cx,
    )  # fmt: skip


def _rotation_to(axis: Tuple3) -> Rotation:
    """A rotation taking +z to the unit vector `axis` (Duff et al. 2017, "Building an Orthonormal Basis, Revisited")."""
    x, y, z = axis
    sign = math.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    return (1.0 + sign * x * x * a, b, x, sign * b, sign + y * y * a, y, -sign * x, -y, z)


def _part(
    shape: str, size: tuple[float, float, float, float], at: Vec3, rotate: Vec3, color: Vec3, material: str
) -> Part:
    a, b, c, d = size
    return Part(
        shape,
        (float(a), float(b), float(c), float(d)),
        _triple(at),
        rotation_xyz(rotate),
        _triple(color),
        material,
    )


def sphere(radius: float, at: Vec3, color: Vec3, material: str = "matte") -> Part:
    """A ball. size = (radius, 0, 0, 0)."""
    return _part("sphere", (radius, 0, 0, 0), at, (0, 0, 0), color, material)


def ellipsoid(radii3: Vec3, at: Vec3, color: Vec3, material: str = "matte", rotate: Vec3 = (0, 0, 0)) -> Part:
    """An ellipsoid with its radii along local x, y, z. size = (rx, ry, rz, 0)."""
    rx, ry, rz = radii3
    return _part("ellipsoid", (rx, ry, rz, 0), at, rotate, color, material)


def box(
    size3_full_extents: Vec3,
    at: Vec3,
    color: Vec3,
    material: str = "matte",
    rotate: Vec3 = (0, 0, 0),
    rounding: float = 0.0,
) -> Part:
    """A box of the given full extents, edges rounded inwards. size = (x, y, z, rounding)."""
    x, y, z = size3_full_extents
    return _part("box", (x, y, z, rounding), at, rotate, color, material)


def cylinder(
    radius: float,
    height: float,
    at: Vec3,
    color: Vec3,
    material: str = "matte",
    rotate: Vec3 = (0, 0, 0),
    rounding: float = 0.0,
) -> Part:
    """A solid cylinder about local z, centred at `at`; a cone of equal radii."""
    return cone(radius, radius, height, at, color, material, rotate, rounding)


def cone(
    bottom_radius: float,
    top_radius: float,
    height: float,
    at: Vec3,
    color: Vec3,
    material: str = "matte",
    rotate: Vec3 = (0, 0, 0),
    rounding: float = 0.0,
) -> Part:
    """A capped cone about local z, `at` = middle of the axis. size = (bottom radius, top radius, height, rounding)."""
    return _part("cone", (bottom_radius, top_radius, height, rounding), at, rotate, color, material)


def capsule(a: Vec3, b: Vec3, radius: float, color: Vec3, material: str = "matte") -> Part:
    """A sphere of `radius` swept from point a to point b."""
    return round_cone(a, b, radius, radius, color, material)


def round_cone(
    a: Vec3, b: Vec3, radius_a: float, radius_b: float, color: Vec3, material: str = "matte"
) -> Part:
    """The hull of a sphere at a and a sphere at b. size = (radius a, radius b, |b - a|, 0); one ball when one sphere
    holds the other."""
    ax, ay, az = _triple(a)
    bx, by, bz = _triple(b)
    ux, uy, uz = bx - ax, by - ay, bz - az
    length = math.sqrt(ux * ux + uy * uy + uz * uz)
    ra, rb = float(radius_a), float(radius_b)
    if length <= abs(ra - rb) + 1e-9:
        return sphere(max(ra, rb), (ax, ay, az) if ra >= rb else (bx, by, bz), color, material)
    at = (0.5 * (ax + bx), 0.5 * (ay + by), 0.5 * (az + bz))
    rotation = _rotation_to((ux / length, uy / length, uz / length))
    return Part("round_cone", (ra, rb, length, 0.0), at, rotation, _triple(color), material)


def torus(
    ring_radius: float,
    tube_radius: float,
    at: Vec3,
    color: Vec3,
    material: str = "matte",
    rotate: Vec3 = (0, 0, 0),
    arc: float = 360.0,
) -> Part:
    """A ring in the local xy plane, round-ended when `arc` (degrees, centred on local +x) is under 360.

    size = (ring radius, tube radius, arc, 0).
    """
    return _part("torus", (ring_radius, tube_radius, arc, 0), at, rotate, color, material)


def tube(
    outer_radius: float,
    thickness: float,
    height: float,
    at: Vec3,
    color: Vec3,
    material: str = "matte",
    rotate: Vec3 = (0, 0, 0),
) -> Part:
    """A hollow open cylinder about local z. size = (outer radius, wall thickness, height, 0)."""
    return _part("tube", (outer_radius, thickness, height, 0), at, rotate, color, material)


def prism(
    width: float,
    height: float,
    length: float,
    at: Vec3,
    color: Vec3,
    material: str = "matte",
    rotate: Vec3 = (0, 0, 0),
) -> Part:
    """A roof: an isosceles triangle in local xz (base `width` on z = -height/2, apex at +height/2) drawn out along
    local y by `length`. size = (width, height, length, 0)."""
    return _part("prism", (width, height, length, 0), at, rotate, color, material)


def _kernel_form(part: Part) -> tuple[int, tuple[float, ...], Tuple3, Tuple3, float]:
    """(kind, kernel size, centre, local half extents, bounding radius about the centre) of one part."""
    a, b, c, d = part.size
    kind = SHAPES.index(part.shape)
    at = part.at
    if kind == SPHERE:
        return kind, (a, a, a, 0.0), at, (a, a, a), a
    if kind == ELLIPSOID:
        return kind, part.size, at, (a, b, c), max(a, b, c)
    if kind == BOX:
        r = min(d, 0.5 * min(a, b, c))
        half = (0.5 * a, 0.5 * b, 0.5 * c)
        inner = (half[0] - r, half[1] - r, half[2] - r)
        return kind, (*inner, r), at, half, math.hypot(*inner) + r
    if kind == CONE:
        return _kernel_cone(part)
    if kind == ROUND_CONE:
        wide = max(a, b)
        return kind, part.size, at, (wide, wide, 0.5 * c + wide), 0.5 * c + wide
    if kind == TORUS:
        half_arc = math.radians(min(c, 360.0)) / 2
        return kind, (a, b, math.sin(half_arc), math.cos(half_arc)), at, (a + b, a + b, b), a + b
    if kind == TUBE:
        return kind, (a, b, 0.5 * c, 0.0), at, (a, a, 0.5 * c), math.hypot(a, 0.5 * c)
    return kind, (0.5 * a, b, 0.5 * c, 0.0), at, (0.5 * a, 0.5 * c, 0.5 * b), 0.5 * math.hypot(a, b, c)


def _kernel_cone(part: Part) -> tuple[int, tuple[float, ...], Tuple3, Tuple3, float]:
    """The cone inset by its rounding (the kernel grows it back), which keeps the outline within the asked size."""
    bottom, top, height, rounding = part.size
    r = min(rounding, 0.5 * height * 0.999, 0.999 * max(bottom, top))
    slope = (top - bottom) / height
    inset = r * math.sqrt(1.0 + slope * slope)
    low, high = -0.5 * height + r, 0.5 * height - r
    radius_low = bottom + slope * (low + 0.5 * height) - inset
    radius_high = bottom + slope * (high + 0.5 * height) - inset
    # A side that closes before the cap is reached ends in a point there: a rounded tip.
    if radius_high < 0.0 < radius_low:
        high, radius_high = low + radius_low / -slope, 0.0
    elif radius_low < 0.0 < radius_high:
        low, radius_low = high - radius_high / slope, 0.0
    radius_low, radius_high = max(radius_low, 0.0), max(radius_high, 0.0)
    half, middle = 0.5 * (high - low), 0.5 * (high + low)
    m = part.rotation
    at = (part.at[0] + m[2] * middle, part.at[1] + m[5] * middle, part.at[2] + m[8] * middle)
    wide = max(radius_low, radius_high)
    extents = (wide + r, wide + r, half + r)
    return CONE, (radius_low, radius_high, half, r), at, extents, math.hypot(wide, half) + r


def pack(parts: Sequence[Part]) -> Packed:
    """The kernels' view of P parts: contiguous arrays.

    kind [P] int32; size [P,4] (kernel form); at [P,3]; rotation [P,9] row-major local to object; half [P,3] local half
    extents; bound [P] bounding radius about `at`; color [P,3] sRGB in [0, 1]; material [P] int32. Reals are float32.
    Raises ValueError for an empty list or a size that is negative or not finite.
    """
    if not parts:
        raise ValueError("an object needs at least one part; the list is empty")
    forms = [_kernel_form(part) for part in parts]
    for part, form in zip(parts, forms, strict=True):
        if not (0.0 < form[4] < math.inf) or min(part.size) < 0.0:
            raise ValueError(f"a {part.shape} part has size {part.size}; sizes must be positive and finite")
    return {
        "kind": np.array([form[0] for form in forms], np.int32),
        "size": np.array([form[1] for form in forms], np.float32),
        "at": np.array([form[2] for form in forms], np.float32),
        "rotation": np.array([part.rotation for part in parts], np.float32),
        "half": np.array([form[3] for form in forms], np.float32),
        "bound": np.array([form[4] for form in forms], np.float32),
        "color": np.array([part.color for part in parts], np.float32),
        "material": np.array([MATERIALS.index(part.material) for part in parts], np.int32),
    }


def pack_batch(packed: Sequence[Packed]) -> Packed:
    """Ragged join of packed objects, with `start` [len + 1] int32: object k owns rows start[k] to start[k + 1]."""
    joined = {name: np.concatenate([one[name] for one in packed]) for name in packed[0] if name != "start"}
    joined["start"] = np.cumsum([0, *(len(one["kind"]) for one in packed)]).astype(np.int32)
    return joined
