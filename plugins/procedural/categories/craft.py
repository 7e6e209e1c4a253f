"""Flying and sailing craft: airplane, helicopter, rocket, sail boat. Noses point to +x (the rocket up)."""

from __future__ import annotations

import math

import numpy as np

from plugins.procedural.categories.base import (
    CARROT,
    DARK,
    DARK_WOOD,
    GLASS,
    GOLD,
    METAL,
    RGB,
    SCARLET,
    SIDES,
    WHITE,
    WOOD,
    Category,
    Palette,
    Vec3,
    both,
    coated,
    coin,
    pick,
    pick_color,
    ring,
    uniform,
)
from plugins.procedural.parts import (
    Part,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    prism,
    round_cone,
    sphere,
    torus,
)


def _propeller(x: float, y: float, z: float, span: float, turn: float) -> list[Part]:
    return [
        round_cone((x - 0.02, y, z), (x + 0.12, y, z), 0.10, 0.06, METAL, material="metal"),
        box((0.06, 0.12, span), (x + 0.06, y, z), DARK, rotate=(turn, 0.0, 0.0), rounding=0.02),
        box((0.06, 0.12, span), (x + 0.06, y, z), DARK, rotate=(turn + 90.0, 0.0, 0.0), rounding=0.02),
    ]


def _wing(size: Vec3, at: Vec3, side: float, sweep: float, color: RGB) -> Part:
    """The left wing of this size and place, or its mirror image on the right; `sweep` in degrees."""
    x, y, z = at
    return box(size, (x, side * y, z), color, rotate=(0.0, 0.0, side * sweep), rounding=0.03)


@coated
def airplane(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """An airplane: jet liner with engines under the wings, or a propeller plane, at times a biplane."""
    style = pick(rng, AIRPLANE.variants)
    natural = (
        (0.93, 0.94, 0.96) if style == "jet" else pick_color(rng, ((0.93, 0.80, 0.20), (0.85, 0.20, 0.16)))
    )
    body, wing = palette.wear(natural), palette.wear(natural, "dark")
    accent = (0.16, 0.34, 0.72) if palette.natural else palette.against(WHITE, DARK)
    girth, nose, tail = uniform(rng, 0.20, 0.26), uniform(rng, 0.72, 0.9), uniform(rng, 0.85, 1.05)
    span, chord, sweep = uniform(rng, 0.85, 1.05), uniform(rng, 0.36, 0.46), 24.0 if style == "jet" else 4.0
    gloss = palette.material
    parts = [
        capsule((-0.2, 0.0, 0.0), (nose - 0.1, 0.0, 0.0), girth, body, material=gloss),
        round_cone((-0.2, 0.0, 0.0), (-tail, 0.0, 0.12), girth, 0.09, body, material=gloss),
        box((0.3, 0.1, 0.46), (-tail - 0.02, 0.0, 0.34), accent, rotate=(0.0, -24.0, 0.0), rounding=0.03),
        ellipsoid((0.20, girth * 0.7, 0.14), (nose * 0.62, 0.0, girth * 0.78), GLASS, material="glossy"),
    ]
    parts += [_wing((0.24, 0.44, 0.09), (-tail, 0.26, 0.16), s, sweep, wing) for s in SIDES]
    back = math.tan(math.radians(sweep)) * span / 2
    for level in (-0.06, 0.5) if style == "biplane" else (-0.06,):
        at = (0.14 - back, span / 2, level)
        parts += [_wing((chord, span + 0.1, 0.1), at, s, sweep, wing) for s in SIDES]
    if style == "biplane":
        parts += both(lambda s: cylinder(0.05, 0.56, (0.1, s * span * 0.62, 0.22), DARK_WOOD))
    if style == "jet":
        parts += both(lambda s: capsule((-0.06, s * 0.42, -0.2), (0.22, s * 0.42, -0.2), 0.12, accent))
        parts += both(lambda s: cylinder(0.09, 0.04, (0.34, s * 0.42, -0.2), DARK, rotate=(0.0, 90.0, 0.0)))
        parts += both(lambda s: box((0.7, 0.06, 0.07), (0.15, s * girth * 0.97, 0.05), GLASS))
    else:
        parts += _propeller(nose + girth - 0.12, 0.0, 0.0, uniform(rng, 0.7, 0.9), uniform(rng, 0.0, 90.0))
        parts += both(lambda s: sphere(0.11, (nose * 0.5, s * 0.26, -girth - 0.2), DARK))
        parts += both(
            lambda s: capsule(
                (nose * 0.5, s * 0.1, -girth * 0.7), (nose * 0.5, s * 0.24, -girth - 0.16), 0.05, METAL
            )
        )
    return parts


@coated
def helicopter(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A helicopter: egg cabin with a glass nose, tail boom and rotor, main rotor, skids."""
    natural = pick_color(rng, ((0.86, 0.20, 0.14), (0.95, 0.72, 0.12), (0.22, 0.42, 0.62)))
    body, shade = palette.wear(natural), palette.wear(natural, "dark")
    long, fat = uniform(rng, 0.52, 0.64), uniform(rng, 0.38, 0.45)
    boom, blades = uniform(rng, 1.0, 1.25), int(rng.integers(2, 5))
    span, turn = uniform(rng, 0.75, 0.92), uniform(rng, 0.0, 90.0)
    stripe = palette.against(WHITE, DARK, base=body)
    skid = palette.wear(METAL, "dark")
    z, rotor = 0.62, 0.62 + fat + 0.2
    parts = [
        ellipsoid((long, fat, fat), (0.0, 0.0, z), body, material=palette.material),
        ellipsoid(
            (long * 0.60, fat * 0.80, fat * 0.66), (long * 0.48, 0.0, z + 0.10), GLASS, material="glossy"
        ),
        ellipsoid((long * 0.635, 0.075, fat * 0.72), (long * 0.48, 0.0, z + 0.10), body),
        round_cone(
            (-long * 0.6, 0.0, z + 0.1), (-boom, 0.0, z + 0.24), 0.24, 0.11, body, material=palette.material
        ),
        box((0.26, 0.09, 0.46), (-boom - 0.06, 0.0, z + 0.4), shade, rotate=(0.0, -20.0, 0.0), rounding=0.03),
        box((0.16, 0.6, 0.07), (-boom + 0.12, 0.0, z + 0.24), shade, rounding=0.02),
        cylinder(0.07, 0.06, (-boom - 0.08, -0.1, z + 0.45), DARK, rotate=(90.0, 0.0, 0.0)),
        box((0.44, 0.06, 0.08), (-boom - 0.08, -0.12, z + 0.45), DARK, rotate=(0.0, turn, 0.0)),
        box((0.5, 0.34, 0.22), (-0.12, 0.0, z + fat * 0.9), shade, rounding=0.08),
        cylinder(0.08, 0.26, (0.0, 0.0, rotor - 0.08), METAL),
        sphere(0.11, (0.0, 0.0, rotor + 0.02), DARK),
    ]
    for (x, y, _), deg in ring(blades, span / 2, 0.0, turn):
        parts.append(box((span, 0.13, 0.06), (x, y, rotor), DARK, rotate=(0.0, 0.0, deg), rounding=0.02))
    parts += both(lambda s: capsule((-0.45, s * 0.3, 0.06), (0.5, s * 0.3, 0.06), 0.055, skid))
    for x in (-0.22, 0.24):
        parts += [capsule((x, s * 0.3, 0.06), (x, s * 0.2, 0.34), 0.05, skid) for s in SIDES]
    parts += both(lambda s: box((0.36, 0.05, 0.08), (-0.26, s * fat * 0.92, z - 0.06), stripe))
    return parts


@coated
def rocket(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """An upright toy rocket: portholes and hatch to the front, fins, nozzle, at times a flame."""
    natural = pick_color(rng, ((0.94, 0.94, 0.95), (0.90, 0.90, 0.86)))
    body = palette.wear(natural)
    fin = palette.wear(pick_color(rng, (SCARLET, (0.90, 0.42, 0.10), (0.16, 0.34, 0.75))), "dark")
    nose = fin if palette.natural else palette.against(WHITE, SCARLET)
    fat, tall, tip = uniform(rng, 0.30, 0.40), uniform(rng, 0.9, 1.3), uniform(rng, 0.45, 0.65)
    z = 0.35
    parts = [
        cone(fat * 0.72, fat, tall * 0.4, (0.0, 0.0, z + tall * 0.2), body, material=palette.material),
        cylinder(fat, tall * 0.42, (0.0, 0.0, z + tall * 0.6), body, material=palette.material),
        cone(fat, fat * 0.72, tall * 0.3, (0.0, 0.0, z + tall * 0.95), body, material=palette.material),
        cone(fat * 0.74, 0.04, tip, (0.0, 0.0, z + tall * 1.1 + tip / 2), nose, rounding=0.02),
        cylinder(fat * 1.03, 0.08, (0.0, 0.0, z + tall * 0.42), fin),
        cone(fat * 0.62, fat * 0.4, 0.2, (0.0, 0.0, z - 0.06), DARK),
        sphere(0.05, (0.0, 0.0, z + tall * 1.1 + tip), METAL),
    ]
    pane = palette.against((0.45, 0.78, 0.92), DARK, base=body)
    for k, level in enumerate((0.85, 0.62)[: int(rng.integers(1, 3))]):
        at = (fat * 0.98, 0.0, z + tall * level)
        parts.append(torus(0.15 - 0.03 * k, 0.05, at, METAL, rotate=(0.0, 90.0, 0.0)))
        parts.append(cylinder(0.14 - 0.03 * k, 0.08, at, pane, rotate=(0.0, 90.0, 0.0)))
    parts.append(
        box(
            (0.1, 0.2, 0.26),
            (fat * 0.83, 0.0, z + tall * 0.2),
            palette.against(DARK, METAL, base=body),
            rounding=0.03,
        )
    )
    for (x, y, _), deg in ring(int(rng.integers(3, 5)), fat + 0.06, 0.0, 60.0 if coin(rng) else 45.0):
        parts.append(box((0.42, 0.1, 0.36), (x, y, z + 0.14), fin, rotate=(0.0, 32.0, deg), rounding=0.03))
        parts.append(
            box((0.13, 0.1, 0.42), (x * 1.62, y * 1.62, z - 0.14), fin, rotate=(0.0, 0.0, deg), rounding=0.03)
        )
    if pick(rng, ROCKET.variants) == "lifting off":
        parts.append(round_cone((0.0, 0.0, z - 0.2), (0.0, 0.0, z - 0.55), fat * 0.45, 0.05, CARROT))
        parts.append(round_cone((0.0, 0.0, z - 0.2), (0.0, 0.0, z - 0.36), fat * 0.5, 0.08, GOLD))
    return parts


@coated
def boat(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A sail boat: hull with a raised bow, deck, mast, main sail and jib, a flag, a rudder."""
    hull = palette.wear(pick_color(rng, ((0.76, 0.16, 0.14), (0.14, 0.30, 0.56), WOOD)))
    rim = palette.wear(WHITE, "dark")
    sail = palette.wear((0.95, 0.93, 0.86), "light")
    jib = palette.wear((0.90, 0.42, 0.20)) if coin(rng) else palette.against(WHITE, DARK)
    long, wide = uniform(rng, 0.72, 0.86), uniform(rng, 0.33, 0.40)
    mast, foot = uniform(rng, 1.25, 1.6), uniform(rng, 0.62, 0.8)
    z = 0.1
    parts = [
        ellipsoid((long, wide, 0.30), (-0.04, 0.0, z + 0.12), hull),
        round_cone((long * 0.2, 0.0, z + 0.12), (long * 1.0, 0.0, z + 0.26), 0.24, 0.08, hull),
        box((long * 0.85, wide * 1.7, 0.3), (-long * 0.46, 0.0, z + 0.14), hull, rounding=0.08),
        round_cone((0.0, 0.0, z + 0.24), (long * 0.98, 0.0, z + 0.32), wide * 0.52, 0.07, rim),
        box((long * 0.8, wide * 1.45, 0.09), (-long * 0.44, 0.0, z + 0.29), WOOD),
        box((0.4, wide, 0.2), (-long * 0.3, 0.0, z + 0.38), palette.wear(WHITE, "light"), rounding=0.04),
        cylinder(0.055, mast, (0.08, 0.0, z + 0.25 + mast / 2), DARK_WOOD),
        box((0.09, 0.08, 0.46), (-long - 0.0, 0.0, z), DARK_WOOD),
    ]
    # The sails stand out to one side, or the boat would vanish seen from the front.
    height, swing = mast * 0.76, (0.0, 0.0, -uniform(rng, 24.0, 36.0))
    aft = (0.02 - foot * 0.45, foot * 0.27, z + 0.54)
    fore = (0.16 + foot * 0.36, 0.0, z + 0.42 + height * 0.36)
    parts += [
        capsule((0.08, 0.0, z + 0.5), (0.06 - foot * 0.9, foot * 0.54, z + 0.5), 0.05, DARK_WOOD),
        prism(foot * 1.1, height, 0.11, (aft[0], aft[1], aft[2] + height / 2), sail, rotate=swing),
        prism(foot * 0.78, height * 0.72, 0.1, fore, jib, rotate=swing),
    ]
    parts.append(
        prism(
            0.16,
            0.26,
            0.07,
            (-0.06, 0.0, z + 0.2 + mast),
            palette.against(SCARLET, GOLD),
            rotate=(0.0, -90.0, 0.0),
        )
    )
    if pick(rng, BOAT.variants) == "banded sail":
        band = palette.against(SCARLET, WHITE, base=sail)
        parts.append(
            box((foot * 0.78, 0.15, 0.13), (aft[0], aft[1], aft[2] + height * 0.3), band, rotate=swing)
        )
    parts += both(
        lambda s: sphere(
            0.075, (long * 0.2, s * wide * 0.96, z + 0.14), palette.against(WHITE, GOLD, base=hull)
        )
    )
    return parts


AIRPLANE = Category(
    "airplane", ("airplane", "plane", "aeroplane"), "white", airplane, ("jet", "propeller", "biplane")
)
HELICOPTER = Category("helicopter", ("helicopter", "toy helicopter"), "red", helicopter, ("skids",))
ROCKET = Category(
    "rocket", ("rocket", "space rocket", "toy rocket"), "white", rocket, ("standing", "lifting off")
)
BOAT = Category("boat", ("sail boat", "boat", "sailing boat"), "red", boat, ("plain sail", "banded sail"))
