"""Furniture: chair, table, sofa, lamp, bed. The side one uses faces +x."""

from __future__ import annotations

import numpy as np

from plugins.procedural.categories.base import (
    CREAM,
    DARK,
    DARK_WOOD,
    GOLD,
    LAMPLIGHT,
    METAL,
    RGB,
    WHITE,
    WOOD,
    Category,
    Palette,
    Vec3,
    both,
    coated,
    coin,
    corners,
    mix,
    pick,
    pick_color,
    uniform,
)
from plugins.procedural.parts import Part, box, capsule, cone, cylinder, ellipsoid, sphere, torus

TIMBER: tuple[RGB, ...] = (WOOD, (0.72, 0.50, 0.28), DARK_WOOD)
CLOTH: tuple[RGB, ...] = ((0.30, 0.48, 0.58), (0.66, 0.30, 0.26), (0.44, 0.52, 0.34), (0.80, 0.70, 0.54))


def _legs(deep: float, wide: float, height: float, thick: float, color: RGB, square: bool) -> list[Part]:
    if square:
        return corners(lambda a, b: box((thick, thick, height), (a * deep, b * wide, height / 2), color))
    return corners(
        lambda a, b: cone(thick * 0.42, thick * 0.62, height, (a * deep, b * wide, height / 2), color)
    )


def _chair_back(
    style: str, x: float, wide: float, seat: float, tall: float, color: RGB, shade: RGB
) -> list[Part]:
    mid = seat + tall / 2
    if style == "solid":
        return [box((0.12, wide, tall), (x, 0.0, mid), color, rotate=(0.0, -6.0, 0.0), rounding=0.05)]
    posts = both(lambda s: box((0.11, 0.11, tall), (x, s * (wide / 2 - 0.055), mid), color, rounding=0.02))
    top = box((0.12, wide, 0.18), (x, 0.0, seat + tall - 0.06), color, rounding=0.04)
    if style == "slats":
        bars = [box((0.09, 0.1, tall), (x, y * wide, mid), shade) for y in (-0.22, 0.0, 0.22)]
    else:
        bars = [box((0.09, wide, 0.12), (x, 0.0, seat + tall * t), shade) for t in (0.3, 0.58)]
    return [*posts, top, *bars]


@coated
def chair(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A chair: solid, slatted or ladder back, straight or turned legs, at times arms and a cushion."""
    timber = pick_color(rng, TIMBER)
    main, shade = palette.wear(timber), palette.wear(mix(timber, DARK, 0.2), "dark")
    style = pick(rng, CHAIR.variants)
    deep, wide, seat = uniform(rng, 0.74, 0.88), uniform(rng, 0.74, 0.9), uniform(rng, 0.58, 0.74)
    tall = uniform(rng, 0.72, 0.98)
    cushion = palette.wear(pick_color(rng, CLOTH), "light")
    parts = [box((deep, wide, 0.13), (0.0, 0.0, seat), main, material=palette.material, rounding=0.04)]
    parts += _legs(deep / 2 - 0.08, wide / 2 - 0.08, seat, 0.14, shade, square=coin(rng))
    parts += _chair_back(style, -deep / 2 + 0.07, wide, seat, tall, main, shade)
    if style == "solid" or coin(rng):
        parts.append(box((deep * 0.82, wide * 0.84, 0.12), (0.04, 0.0, seat + 0.1), cushion, rounding=0.05))
    if coin(rng, 0.4):
        parts += both(
            lambda s: box((deep * 0.9, 0.11, 0.1), (0.0, s * (wide / 2), seat + 0.34), main, rounding=0.03)
        )
        parts += both(lambda s: box((0.1, 0.1, 0.34), (deep * 0.36, s * (wide / 2), seat + 0.17), main))
    if coin(rng):
        parts += both(
            lambda s: box((deep * 0.8, 0.08, 0.08), (0.0, s * (wide / 2 - 0.08), seat * 0.42), shade)
        )
    else:
        parts.append(box((0.08, wide * 0.85, 0.09), (deep / 2 - 0.08, 0.0, seat * 0.4), shade))
        parts.append(box((0.08, wide * 0.85, 0.09), (-deep / 2 + 0.08, 0.0, seat * 0.4), shade))
    return parts


@coated
def table(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A table, round, square or with a shelf, with a drawer at the front."""
    timber = pick_color(rng, TIMBER)
    main, shade = palette.wear(timber), palette.wear(mix(timber, DARK, 0.18), "dark")
    style = pick(rng, TABLE.variants)
    deep, wide, tall = uniform(rng, 0.9, 1.2), uniform(rng, 1.3, 1.8), uniform(rng, 0.66, 0.86)
    thick = uniform(rng, 0.13, 0.18)
    if style == "round":
        deep = wide = uniform(rng, 1.2, 1.5)
        parts = [cylinder(deep / 2, 0.13, (0.0, 0.0, tall), main, material=palette.material, rounding=0.03)]
        in_x = in_y = deep * 0.29
    else:
        parts = [box((deep, wide, 0.13), (0.0, 0.0, tall), main, material=palette.material, rounding=0.03)]
        in_x, in_y = deep / 2 - 0.12, wide / 2 - 0.12
    parts += _legs(in_x, in_y, tall, thick, shade, square=style != "round" or coin(rng))
    parts += both(lambda s: box((in_x * 2, 0.08, 0.16), (0.0, s * in_y, tall - 0.13), main))
    parts.append(box((0.08, in_y * 2, 0.16), (-in_x, 0.0, tall - 0.13), main))
    drawer = palette.against(CREAM, WOOD, base=main)
    parts.append(box((in_x * 1.6, in_y * 1.2, 0.24), (in_x * 0.3, 0.0, tall - 0.16), drawer))
    parts.append(
        sphere(0.065, (in_x * 1.1 + 0.05, 0.0, tall - 0.17), palette.against(GOLD, DARK, base=drawer))
    )
    if style == "with shelf":
        parts.append(box((in_x * 2, in_y * 2, 0.09), (0.0, 0.0, tall * 0.3), main))
    # Set at the front right corner, so that the front shows from above as well.
    x, y, ware = deep * 0.24, -wide * 0.2, palette.against(WHITE, DARK, base=main)
    if coin(rng):
        parts.append(cone(0.1, 0.16, 0.2, (x, y, tall + 0.16), ware))
        parts.append(sphere(0.14, (x, y, tall + 0.34), (0.24, 0.55, 0.22)))
    else:
        parts.append(cone(0.12, 0.21, 0.08, (x, y, tall + 0.1), ware))
        parts.append(sphere(0.1, (x, y, tall + 0.2), pick_color(rng, ((0.84, 0.2, 0.14), (0.95, 0.6, 0.1)))))
    return parts


def _cushion(size: Vec3, at: Vec3, lean: float, rounding: float, color: RGB) -> Part:
    return box(size, at, color, rotate=(0.0, lean, 0.0), rounding=rounding)


@coated
def sofa(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A sofa: two or three seats, box or rolled arms, throw pillows."""
    cloth = pick_color(rng, CLOTH)
    main, light = palette.wear(cloth), palette.wear(mix(cloth, WHITE, 0.15), "light")
    shade = palette.wear(mix(cloth, DARK, 0.2), "dark")
    seats, deep = int(rng.integers(2, 4)), uniform(rng, 0.78, 0.92)
    wide = 0.52 * seats + uniform(rng, 0.1, 0.3)
    back, arm = uniform(rng, 0.78, 0.96), uniform(rng, 0.52, 0.64)
    rolled = pick(rng, SOFA.variants) == "rolled arms"
    parts = [
        box((deep, wide, 0.28), (0.0, 0.0, 0.26), shade, rounding=0.04),
        _cushion((0.26, wide, back), (-deep / 2 + 0.08, 0.0, back / 2 + 0.1), -6.0, 0.08, main),
    ]
    parts += both(
        lambda s: box(
            (deep, 0.22, arm - 0.1), (0.02, s * (wide / 2 + 0.06), arm / 2 + 0.08), main, rounding=0.06
        )
    )
    if rolled:
        turn, spot = (0.0, 90.0, 0.0), wide / 2 + 0.08
        parts += both(
            lambda s: cylinder(0.15, deep, (0.02, s * spot, arm + 0.02), main, rotate=turn, rounding=0.03)
        )
    step = wide * 0.92 / seats
    for k in range(seats):
        y = step * (k - (seats - 1) / 2)
        parts.append(box((deep * 0.76, step * 0.95, 0.18), (0.1, y, 0.46), light, rounding=0.07))
        parts.append(_cushion((0.18, step * 0.93, 0.36), (-deep * 0.26, y, 0.72), -12.0, 0.08, light))
    parts += corners(lambda a, b: cone(0.05, 0.075, 0.16, (a * deep * 0.4, b * wide * 0.46, 0.08), DARK_WOOD))
    pillow, square = palette.against(CREAM, GOLD, DARK), (0.13, 0.3, 0.3)
    for y in (-wide * 0.36, wide * 0.36)[: 1 + coin(rng)]:
        parts.append(_cushion(square, (-deep * 0.06, y, 0.70), -20.0, 0.06, pillow))
    return parts


def _lamp_stem(style: str, stem: float, main: RGB, shade: RGB, material: str) -> list[Part]:
    if style == "urn base":
        return [
            ellipsoid((0.30, 0.30, stem * 0.40), (0.0, 0.0, stem * 0.42), main, material=material),
            cylinder(0.09, stem, (0.0, 0.0, stem * 0.55), shade),
            torus(0.13, 0.05, (0.0, 0.0, stem * 0.82), shade),
        ]
    if style == "stacked balls":
        return [
            sphere(r, (0.0, 0.0, 0.1 + stem * t), main, material=material)
            for r, t in ((0.22, 0.18), (0.17, 0.5), (0.13, 0.8))
        ]
    return [
        cylinder(0.075, stem, (0.0, 0.0, stem / 2 + 0.05), main, material=material),
        sphere(0.13, (0.0, 0.0, stem * 0.5), shade),
    ]


@coated
def lamp(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A table lamp: flared, drum or dome shade on a stem, a pull chain with a bead at the front."""
    cover = palette.wear(pick_color(rng, (CREAM, (0.92, 0.78, 0.56), (0.84, 0.50, 0.34))))
    stand = pick_color(rng, ((0.30, 0.46, 0.50), (0.72, 0.52, 0.22), WOOD))
    main, shade = palette.wear(stand), palette.wear(mix(stand, DARK, 0.2), "dark")
    stem, wide = uniform(rng, 0.62, 0.86), uniform(rng, 0.46, 0.58)
    tall = uniform(rng, 0.44, 0.58)
    kind, top = int(rng.integers(3)), stem + 0.1
    parts = [
        cylinder(wide * 0.68, 0.1, (0.0, 0.0, 0.05), shade, rounding=0.03),
        cone(wide * 0.52, 0.1, 0.12, (0.0, 0.0, 0.15), main),
        *_lamp_stem(pick(rng, LAMP.variants), stem, main, shade, palette.material),
        sphere(0.15, (0.0, 0.0, top), LAMPLIGHT, material="glossy"),
    ]
    if kind == 0:
        parts.append(cone(wide, wide * 0.52, tall, (0.0, 0.0, top + tall / 2), cover))
    elif kind == 1:
        parts.append(cylinder(wide * 0.86, tall, (0.0, 0.0, top + tall / 2), cover, rounding=0.02))
    else:
        parts.append(cone(wide, wide * 0.76, tall * 0.5, (0.0, 0.0, top + tall / 4), cover))
        parts.append(ellipsoid((wide * 0.76, wide * 0.76, tall * 0.42), (0.0, 0.0, top + tall * 0.5), cover))
    rim = palette.against(GOLD, WHITE, DARK, base=cover)
    parts += [
        torus(wide * (0.86 if kind == 1 else 0.98), 0.04, (0.0, 0.0, top + 0.03), palette.wear(rim, "dark")),
        sphere(0.07, (0.0, 0.0, top + tall + (0.0 if kind == 2 else 0.05)), shade),
        capsule((wide * 0.62, 0.0, top), (wide * 0.62, 0.0, top - 0.22), 0.04, METAL),
        sphere(0.085, (wide * 0.62, 0.0, top - 0.3), rim),
        box((0.1, 0.14, 0.08), (wide * 0.5, 0.0, 0.12), rim, rounding=0.02),
    ]
    return parts


@coated
def bed(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A bed: headboard at the back, foot at the front, mattress, pillows and a blanket."""
    timber = pick_color(rng, TIMBER)
    frame = palette.wear(timber, "dark")
    blanket = palette.wear(pick_color(rng, CLOTH))
    sheet = palette.against(WHITE, (0.62, 0.64, 0.66)) if not palette.natural else WHITE
    long, double = uniform(rng, 1.7, 2.0), coin(rng)
    wide = uniform(rng, 1.25, 1.5) if double else uniform(rng, 0.85, 1.0)
    head, foot = uniform(rng, 0.8, 1.05), uniform(rng, 0.40, 0.55)
    style = pick(rng, BED.variants)
    parts = [
        box((long, wide, 0.2), (0.0, 0.0, 0.28), frame, rounding=0.03),
        box((long * 0.96, wide * 0.94, 0.2), (0.0, 0.0, 0.44), sheet, rounding=0.06),
        box((long * 0.66, wide * 1.02, 0.24), (long * 0.16, 0.0, 0.46), blanket, rounding=0.08),
        box((0.2, wide * 1.02, 0.1), (-long * 0.15, 0.0, 0.57), palette.wear(WHITE, "light"), rounding=0.04),
        box((0.1, wide, foot), (long / 2, 0.0, foot / 2 + 0.05), frame, rounding=0.03),
    ]
    if style == "panel headboard":
        parts.append(box((0.13, wide * 1.04, head), (-long / 2, 0.0, head / 2 + 0.08), frame, rounding=0.05))
    elif style == "rounded headboard":
        parts.append(box((0.13, wide, head * 0.75), (-long / 2, 0.0, head * 0.42), frame, rounding=0.03))
        parts.append(ellipsoid((0.09, wide * 0.5, 0.3), (-long / 2, 0.0, head * 0.76), frame))
    else:
        parts += [
            box((0.1, 0.11, head * 0.8), (-long / 2, y * wide, head * 0.5), frame)
            for y in (-0.3, -0.1, 0.1, 0.3)
        ]
        parts.append(box((0.13, wide * 1.04, 0.14), (-long / 2, 0.0, head), frame, rounding=0.04))
    count = 2 if double else 1
    for k in range(count):
        y = (k - (count - 1) / 2) * wide * 0.46
        parts.append(
            box((0.32, wide * (0.4 if double else 0.7), 0.17), (-long * 0.36, y, 0.6), sheet, rounding=0.07)
        )
    parts += corners(lambda a, b: cylinder(0.075, 0.36, (a * long / 2, b * (wide / 2 - 0.05), 0.18), frame))
    parts += both(lambda s: sphere(0.09, (-long / 2, s * (wide / 2), head + 0.1), frame))
    return parts


CHAIR = Category(
    "chair", ("chair", "wooden chair", "dining chair"), "brown", chair, ("solid", "slats", "ladder")
)
TABLE = Category("table", ("table", "table with a drawer"), "brown", table, ("square", "round", "with shelf"))
SOFA = Category("sofa", ("sofa", "couch"), "blue", sofa, ("box arms", "rolled arms"))
LAMP = Category(
    "lamp",
    ("table lamp", "lamp", "lamp with a shade"),
    "white",
    lamp,
    ("urn base", "stacked balls", "plain stem"),
)
BED = Category(
    "bed",
    ("bed", "bed with pillows"),
    "blue",
    bed,
    ("panel headboard", "rounded headboard", "barred headboard"),
)
