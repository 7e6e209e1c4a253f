"""Buildings: castle on a hill, house, lighthouse, windmill. Gates and doors face +x."""

from __future__ import annotations

import math

import numpy as np

from plugins.procedural.categories.base import (
    DARK,
    DARK_WOOD,
    GLASS,
    GOLD,
    GRASS,
    LAMPLIGHT,
    METAL,
    RGB,
    SCARLET,
    SIDES,
    STONE,
    WHITE,
    Category,
    Palette,
    both,
    coated,
    coin,
    corners,
    mix,
    pick,
    pick_color,
    uniform,
)
from plugins.procedural.parts import Part, box, cone, cylinder, ellipsoid, prism, sphere, torus

ROOFS: tuple[RGB, ...] = ((0.24, 0.36, 0.66), (0.72, 0.22, 0.16), (0.36, 0.30, 0.52))


def _tower(
    at: tuple[float, float], radius: float, top: float, roof: float, wall: RGB, tile: RGB
) -> list[Part]:
    x, y = at
    base = 0.1
    return [
        cylinder(radius, top - base, (x, y, (top + base) / 2), wall),
        cone(radius * 1.32, 0.02, roof, (x, y, top + roof / 2), tile, rounding=0.01),
    ]


def _gate(x: float, top: float, wall: RGB, door: RGB) -> list[Part]:
    return [
        box((0.22, 0.46, top), (x, 0.0, top / 2 + 0.2), wall),
        box((0.08, 0.26, 0.24), (x + 0.10, 0.0, 0.34), door),
        cylinder(0.13, 0.08, (x + 0.10, 0.0, 0.46), door, rotate=(0.0, 90.0, 0.0)),
        box((0.40, 0.24, 0.06), (x + 0.26, 0.0, 0.21), DARK_WOOD, rotate=(0.0, 14.0, 0.0)),
    ]


def _walls(half: float, height: float, wall: RGB) -> list[Part]:
    z = 0.15 + height / 2
    parts = both(lambda s: box((2 * half, 0.14, height), (0.0, s * half, z), wall))
    parts += both(lambda s: box((0.14, 2 * half, height), (s * half, 0.0, z), wall))
    top = 0.15 + height + 0.04
    for k in (-0.35, 0.35):
        parts += [box((0.14, 0.16, 0.12), (k * half * 1.2, s * half, top), wall) for s in SIDES]
    return parts


@coated
def castle(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A stone castle on a small green hill: curtain walls, four round towers, a keep, a gate at the front."""
    wall = palette.wear(mix(STONE, WHITE, uniform(rng, 0.0, 0.4)), "light")
    tile = palette.wear(pick_color(rng, ROOFS), "dark")
    keep = palette.wear(mix(STONE, DARK, 0.08), "main")
    half, height = uniform(rng, 0.48, 0.58), uniform(rng, 0.30, 0.44)
    radius, roof = uniform(rng, 0.17, 0.22), uniform(rng, 0.34, 0.52)
    low, high = uniform(rng, 0.74, 0.86), uniform(rng, 0.86, 1.06)
    window = palette.against(DARK, LAMPLIGHT, base=wall)
    hill = half * 1.42 + radius + 0.10
    parts = [
        cone(hill * 1.08, hill * 0.78, 0.42, (0.0, 0.0, -0.05), GRASS, rounding=0.08),
        ellipsoid((hill * 0.8, hill * 0.8, 0.07), (0.0, 0.0, 0.15), mix(GRASS, WHITE, 0.12)),
    ]
    parts += _walls(half, height, wall)
    for at, top in (((half, half), low), ((half, -half), low), ((-half, half), high), ((-half, -half), high)):
        parts += _tower(at, radius, top, roof, wall, tile)
    parts += _gate(
        half + 0.04, height + uniform(rng, 0.06, 0.16), wall, palette.against(DARK_WOOD, STONE, base=wall)
    )
    parts += both(lambda s: box((0.08, 0.09, 0.17), (half + radius - 0.03, s * half, low - 0.2), window))
    tall = uniform(rng, 1.15, 1.4)
    if pick(rng, CASTLE.variants) == "round keep":
        parts += _tower((-0.06, 0.0), radius * 1.45, tall, roof * 1.25, keep, tile)
        front, tip = radius * 1.45 - 0.08, tall + roof * 1.25
    else:
        side = radius * 2.5
        parts.append(box((side, side, tall - 0.1), (-0.06, 0.0, tall / 2 + 0.05), keep))
        parts.append(
            prism(side * 1.2, roof, side * 1.2, (-0.06, 0.0, tall + roof / 2), tile, rotate=(0.0, 0.0, 90.0))
        )
        front, tip = side / 2 - 0.06, tall + roof - 0.04
    parts.append(box((0.08, 0.12, 0.2), (front, 0.0, tall - 0.24), window))
    flag = palette.against(SCARLET, GOLD, base=tile)
    parts.append(cylinder(0.035, 0.3, (-0.06, 0.0, tip + 0.1), DARK))
    parts.append(box((0.22, 0.06, 0.14), (-0.18, 0.0, tip + 0.18), flag))
    return parts


def _windows(points: list[tuple[float, float, float]], color: RGB, frame: RGB, side: bool) -> list[Part]:
    parts: list[Part] = []
    for x, y, z in points:
        size = (0.24, 0.05, 0.26) if side else (0.05, 0.24, 0.26)
        frame_size = (0.32, 0.035, 0.34) if side else (0.035, 0.32, 0.34)
        parts += [box(frame_size, (x, y, z), frame), box(size, (x, y, z), color)]
    return parts


@coated
def house(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A small house: walls, pitched roof, front door, windows, a chimney, at times a porch."""
    wall = palette.wear(pick_color(rng, ((0.95, 0.90, 0.78), (0.90, 0.74, 0.52), (0.82, 0.88, 0.90))))
    tile = palette.wear(pick_color(rng, ((0.70, 0.24, 0.16), (0.46, 0.26, 0.18), (0.34, 0.36, 0.42))), "dark")
    door = (
        palette.against((0.20, 0.42, 0.28), GOLD, WHITE, base=wall)
        if palette.natural
        else palette.against(WHITE, DARK_WOOD)
    )
    frame, pane = palette.against(WHITE, DARK_WOOD, base=wall), palette.against(GLASS, LAMPLIGHT, base=wall)
    deep, wide, tall = uniform(rng, 1.0, 1.25), uniform(rng, 1.1, 1.4), uniform(rng, 0.68, 0.86)
    rise = uniform(rng, 0.5, 0.72)
    gable = pick(rng, HOUSE.variants) == "gable front"
    across, along, turn = (wide, deep, 90.0) if gable else (deep, wide, 0.0)
    parts = [
        box((deep, wide, tall), (0.0, 0.0, tall / 2), wall),
        prism(across, rise * 0.92, along, (0.0, 0.0, tall + rise * 0.46), wall, rotate=(0.0, 0.0, turn)),
        box((deep + 0.12, wide + 0.12, 0.08), (0.0, 0.0, 0.03), STONE),
    ]
    # Two slabs make the roof, so that the gable keeps the colour of the walls.
    slope = math.degrees(math.atan2(rise, across / 2))
    slab = math.hypot(rise, across / 2) + 0.22
    for s in (1.0, -1.0):
        shift = s * (across * 0.25 + 0.1 * math.cos(math.radians(slope)))
        z = tall + rise / 2 + 0.02 - 0.1 * math.sin(math.radians(slope))
        at = (0.0, shift, z) if gable else (shift, 0.0, z)
        size = (along + 0.2, slab, 0.1) if gable else (slab, along + 0.2, 0.1)
        parts.append(box(size, at, tile, rotate=(-s * slope, 0.0, 0.0) if gable else (0.0, s * slope, 0.0)))
    side = uniform(rng, -0.25, 0.25) * wide * 0.5
    parts += [
        box((0.08, 0.28, 0.5), (deep / 2, side, 0.28), door),
        sphere(0.035, (deep / 2 + 0.05, side + 0.08, 0.28), GOLD),
        box((0.2, 0.42, 0.07), (deep / 2 + 0.1, side, 0.04), STONE),
        box(
            (0.2, 0.2, 0.55),
            (-deep * 0.22, wide * 0.26, tall + rise * 0.75),
            palette.wear((0.62, 0.30, 0.22)),
        ),
    ]
    spots = [y for y in (-wide * 0.32, wide * 0.32) if abs(y - side) > 0.34]
    parts += _windows([(deep / 2, y, tall * 0.55) for y in spots], pane, frame, side=False)
    parts += _windows([(0.0, s * wide / 2, tall * 0.55) for s in (1.0, -1.0)], pane, frame, side=True)
    if coin(rng, 0.4):
        parts += _porch(deep / 2, side, palette.wear((0.92, 0.92, 0.90), "light"), tile)
    return parts


def _porch(x: float, y: float, post: RGB, tile: RGB) -> list[Part]:
    posts = both(lambda s: cylinder(0.05, 0.6, (x + 0.3, y + s * 0.28, 0.3), post))
    return posts + [box((0.44, 0.76, 0.08), (x + 0.18, y, 0.63), tile, rotate=(0.0, 12.0, 0.0))]


@coated
def lighthouse(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A banded, tapering light tower on a rock, with gallery, lantern, front door and a hut behind."""
    body = palette.wear(SCARLET)
    band = palette.against(WHITE, (0.45, 0.45, 0.47), base=body)
    dome = palette.wear((0.62, 0.10, 0.10), "dark")
    tall, foot = uniform(rng, 1.5, 1.9), uniform(rng, 0.34, 0.42)
    top = foot * uniform(rng, 0.60, 0.72)
    parts = [
        ellipsoid((0.64, 0.56, 0.18), (-0.1, 0.0, 0.0), (0.40, 0.38, 0.36)),
        cone(foot, top, tall, (0.0, 0.0, tall / 2 + 0.05), body),
    ]
    count = int(rng.integers(2, 4))
    for k in range(count):
        t = (k + 0.75) / (count + 0.35)
        r = foot + (top - foot) * t + 0.015
        parts.append(cone(r + 0.012, r - 0.012, tall * 0.29 / count, (0.0, 0.0, 0.05 + tall * t), band))
    z = tall + 0.05
    parts += [
        cylinder(top * 1.45, 0.09, (0.0, 0.0, z), dome),
        torus(top * 1.36, 0.04, (0.0, 0.0, z + 0.16), dome),
        cylinder(top * 0.8, 0.32, (0.0, 0.0, z + 0.18), LAMPLIGHT, material="glossy"),
        box((0.12, 0.16, 0.2), (top * 0.75, 0.0, z + 0.2), WHITE, rounding=0.03),
        sphere(0.06, (0.0, 0.0, z + 0.66), METAL),
    ]
    if pick(rng, LIGHTHOUSE.variants) == "domed":
        parts.append(ellipsoid((top, top, 0.28), (0.0, 0.0, z + 0.34), dome))
    else:
        parts.append(cone(top * 1.15, 0.04, 0.36, (0.0, 0.0, z + 0.5), dome))
    door = palette.against(DARK, GOLD, base=body)
    parts += [
        box((0.12, 0.26, 0.36), (foot - 0.04, 0.0, 0.3), door),
        box((0.1, 0.14, 0.18), (foot + (top - foot) * 0.5 - 0.02, 0.0, 0.05 + tall * 0.5), GLASS),
        box((0.4, 0.44, 0.36), (-foot - 0.14, 0.0, 0.28), palette.wear(WHITE, "light")),
        prism(0.54, 0.22, 0.5, (-foot - 0.14, 0.0, 0.56), dome, rotate=(0.0, 0.0, 90.0)),
    ]
    return parts


@coated
def windmill(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A tower mill: tapering body, cap, four sails and a door on the front."""
    body = palette.wear(pick_color(rng, ((0.93, 0.90, 0.82), (0.80, 0.62, 0.44), (0.74, 0.72, 0.68))))
    cap = palette.wear((0.50, 0.24, 0.16), "dark")
    frame = palette.wear(DARK_WOOD, "dark")
    cloth = palette.wear(WHITE, "light")
    tall, foot = uniform(rng, 1.15, 1.45), uniform(rng, 0.42, 0.52)
    top = foot * uniform(rng, 0.58, 0.7)
    span, turn = uniform(rng, 0.72, 0.9), uniform(rng, 0.0, 90.0)
    z, x = tall + 0.06, top + 0.2
    parts = [
        cylinder(foot * 1.2, 0.1, (0.0, 0.0, 0.03), STONE),
        cone(foot, top, tall, (0.0, 0.0, tall / 2), body),
        box((0.12, 0.26, 0.38), (foot - 0.04, 0.0, 0.24), palette.against(DARK_WOOD, WHITE, base=body)),
        cylinder(0.07, 0.3, (x - 0.1, 0.0, z), DARK, rotate=(0.0, 90.0, 0.0)),
        sphere(0.12, (x + 0.03, 0.0, z), palette.against(GOLD, DARK)),
    ]
    if pick(rng, WINDMILL.variants) == "domed cap":
        parts.append(ellipsoid((top * 1.15, top * 1.1, 0.36), (0.0, 0.0, tall), cap))
    else:
        parts.append(cone(top * 1.2, 0.05, 0.5, (0.0, 0.0, tall + 0.24), cap))
    for k in range(4):
        deg = turn + 90.0 * k
        c, s = math.cos(math.radians(deg)), math.sin(math.radians(deg))
        mid, off = span * 0.52, 0.12
        parts.append(
            box((0.08, 0.08, span), (x, -s * span / 2, z + c * span / 2), frame, rotate=(deg, 0.0, 0.0))
        )
        at = (x, -s * mid - c * off, z + c * mid - s * off)
        parts.append(box((0.06, 0.24, span * 0.72), at, cloth, rotate=(deg, 0.0, 0.0)))
    pane = palette.against(GLASS, LAMPLIGHT, base=body)
    parts.append(box((0.1, 0.16, 0.18), (foot * 0.82, 0.0, tall * 0.52), pane))
    parts += both(lambda s: box((0.16, 0.1, 0.18), (0.0, s * foot * 0.80, tall * 0.52), pane))
    if coin(rng):
        parts.append(torus(foot * 0.98, 0.06, (0.0, 0.0, tall * 0.36), frame))
    parts += corners(lambda a, b: sphere(0.09, (a * foot * 0.9, b * foot * 0.9, 0.09), GRASS))
    return parts


CASTLE = Category(
    "castle",
    ("castle on a hill", "castle", "stone castle on a hill"),
    "white",
    castle,
    ("round keep", "square keep"),
)
HOUSE = Category(
    "house", ("house", "small house", "cottage"), "yellow", house, ("gable front", "eaves front")
)
LIGHTHOUSE = Category(
    "lighthouse", ("lighthouse", "lighthouse on a rock"), "red", lighthouse, ("domed", "pointed")
)
WINDMILL = Category("windmill", ("windmill", "old windmill"), "white", windmill, ("domed cap", "pointed cap"))
