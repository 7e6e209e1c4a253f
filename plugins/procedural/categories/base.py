"""What every category shares: the colour names, the palette a shape is painted with, and small helpers.

All colours are sRGB tuples in [0, 1]; lengths are object units (any scale), angles degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from plugins.procedural.parts import Part

RGB = tuple[float, float, float]
Vec3 = tuple[float, float, float]

# Far apart from each other and from the (0.5, 0.5, 0.5) background under shading, hence a dark "gray".
COLORS: dict[str, RGB] = {
    "red": (0.84, 0.10, 0.10),
    "orange": (0.98, 0.50, 0.06),
    "yellow": (0.98, 0.85, 0.12),
    "green": (0.13, 0.62, 0.18),
    "cyan": (0.14, 0.80, 0.84),
    "blue": (0.12, 0.27, 0.84),
    "purple": (0.50, 0.16, 0.68),
    "pink": (0.98, 0.52, 0.72),
    "brown": (0.46, 0.24, 0.06),
    "black": (0.07, 0.07, 0.08),
    "white": (0.94, 0.94, 0.93),
    "gray": (0.31, 0.31, 0.32),
}

WHITE: RGB = (0.94, 0.94, 0.92)
CREAM: RGB = (0.96, 0.90, 0.76)
BLACK: RGB = (0.05, 0.05, 0.06)
DARK: RGB = (0.13, 0.13, 0.15)
RUBBER: RGB = (0.10, 0.10, 0.11)
STONE: RGB = (0.80, 0.77, 0.70)
METAL: RGB = (0.70, 0.72, 0.75)
GLASS: RGB = (0.16, 0.26, 0.36)
WOOD: RGB = (0.60, 0.38, 0.18)
DARK_WOOD: RGB = (0.36, 0.21, 0.10)
SKIN: RGB = (0.95, 0.74, 0.58)
ROSE: RGB = (0.95, 0.60, 0.62)
GRASS: RGB = (0.30, 0.60, 0.22)
LEAF: RGB = (0.18, 0.52, 0.17)
CARROT: RGB = (0.97, 0.48, 0.08)
GOLD: RGB = (0.95, 0.78, 0.15)
LAMPLIGHT: RGB = (1.00, 0.93, 0.62)
SCARLET: RGB = (0.82, 0.14, 0.12)

SIDES = (1.0, -1.0)  # signs of y: the object's left, then its right


def mix(a: RGB, b: RGB, t: float) -> RGB:
    """Straight blend of two sRGB colours: `a` at t = 0, `b` at t = 1."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def distance(a: RGB, b: RGB) -> float:
    """Euclidean distance of two sRGB colours, in [0, sqrt(3)]."""
    return math.dist(a, b)


@dataclass(frozen=True)
class Palette:
    """The paint of one object.

    main: the named colour, slightly jittered; light, dark: its shades, of which `wear` takes a part;
    natural: the caption names no colour, so the category wears its own look; material: of the main parts.
    """

    main: RGB
    light: RGB
    dark: RGB
    natural: bool = False
    material: str = "matte"

    def wear(self, natural: RGB, shade: str = "main") -> RGB:
        """`natural` when the caption names no colour, else the palette's "main", "light" or "dark"."""
        if self.natural:
            return natural
        # The full shades would change the name: a pale red reads pink, a dark orange brown.
        shades = {
            "main": self.main,
            "light": mix(self.main, self.light, 0.3),
            "dark": mix(self.main, self.dark, 0.4),
        }
        return shades[shade]

    def against(self, *options: RGB, base: RGB | None = None) -> RGB:
        """The first option that stands off `base` (default: main); the farthest one when none does."""
        base = self.main if base is None else base
        for option in options:
            if distance(option, base) > 0.38:
                return option
        return max(options, key=lambda option: distance(option, base))


Build = Callable[[np.random.Generator, Palette], "list[Part]"]


def coated(build: Build) -> Build:
    """The same shape with every part in the palette's material when that is not matte.

    Under "matte" parts keep their own finish, so that eyes, panes and car bodies still shine.
    """

    @wraps(build)
    def finished(rng: np.random.Generator, palette: Palette) -> list[Part]:
        parts = build(rng, palette)
        if palette.material == "matte":
            return parts
        return [replace(part, material=palette.material) for part in parts]

    return finished


@dataclass(frozen=True)
class Category:
    """One kind of object.

    name: key; nouns: phrasings used in captions; natural: colour name nearest its natural look;
    build(rng, palette): parts in object units, facing +x with z up; variants: the styles rng draws from.
    """

    name: str
    nouns: tuple[str, ...]
    natural: str
    build: Build
    variants: tuple[str, ...] = ()


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """One plain float in [low, high)."""
    return float(rng.uniform(low, high))


def coin(rng: np.random.Generator, chance: float = 0.5) -> bool:
    """True with the given chance."""
    return bool(rng.random() < chance)


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """One of the names, each as likely."""
    return options[int(rng.integers(len(options)))]


def pick_color(rng: np.random.Generator, options: tuple[RGB, ...]) -> RGB:
    """One of the colours, each as likely."""
    return options[int(rng.integers(len(options)))]


def both(make: Callable[[float], Part]) -> list[Part]:
    """The part made for the object's left (+1, at +y) and right (-1, at -y)."""
    return [make(side) for side in SIDES]


def corners(make: Callable[[float, float], Part]) -> list[Part]:
    """The part made for the four corners: signs of (x, y)."""
    return [make(sx, sy) for sx in SIDES for sy in SIDES]


def ring(count: int, radius: float, z: float, start: float = 0.0) -> list[tuple[Vec3, float]]:
    """`count` points on a circle around z at height z, each with its azimuth in degrees from `start`."""
    points: list[tuple[Vec3, float]] = []
    for k in range(count):
        deg = start + 360.0 * k / count
        rad = math.radians(deg)
        points.append(((radius * math.cos(rad), radius * math.sin(rad), z), deg))
    return points
