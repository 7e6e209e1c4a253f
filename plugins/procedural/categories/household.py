"""Things of the house: mug, teapot, guitar, umbrella."""

from __future__ import annotations

import math

import numpy as np

from plugins.procedural.categories.base import (
    CREAM,
    DARK,
    DARK_WOOD,
    GOLD,
    METAL,
    SCARLET,
    SIDES,
    WHITE,
    WOOD,
    Category,
    Palette,
    both,
    coated,
    coin,
    mix,
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
    round_cone,
    sphere,
    torus,
    tube,
)

GLAZE = ((0.90, 0.88, 0.82), (0.26, 0.46, 0.62), (0.72, 0.32, 0.24), (0.36, 0.54, 0.42))


@coated
def mug(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A mug of coffee: the handle always on its right side (-y), a badge on the front."""
    glaze = pick_color(rng, GLAZE)
    main, shade = palette.wear(glaze), palette.wear(mix(glaze, DARK, 0.15), "dark")
    style = pick(rng, MUG.variants)
    wide, tall = uniform(rng, 0.40, 0.52), uniform(rng, 0.82, 1.08)
    badge = palette.against(WHITE, SCARLET, DARK, base=main)
    wall = palette.material if palette.material != "matte" else "glossy"
    parts = [
        tube(wide, 0.1, tall, (0.0, 0.0, tall / 2), main, material=wall),
        cylinder(wide - 0.03, 0.12, (0.0, 0.0, 0.07), main, material=wall),
        cylinder(wide - 0.05, 0.06, (0.0, 0.0, tall - 0.14), (0.30, 0.16, 0.08)),
        torus(wide - 0.05, 0.06, (0.0, 0.0, tall - 0.01), shade, material=wall),
        cylinder(wide * 0.85, 0.08, (0.0, 0.0, 0.0), shade),
        torus(
            tall * 0.27, 0.09, (0.0, -wide + 0.02, tall * 0.52), shade, rotate=(90.0, 0.0, -90.0), arc=210.0
        ),
        cylinder(0.17, 0.06, (wide - 0.01, 0.0, tall * 0.52), badge, rotate=(0.0, 90.0, 0.0)),
        sphere(0.08, (wide + 0.01, 0.0, tall * 0.52), palette.against(main, SCARLET, base=badge)),
    ]
    if style == "banded":
        parts += [cylinder(wide + 0.015, 0.09, (0.0, 0.0, tall * t), shade) for t in (0.16, 0.86)]
    elif style == "footed":
        parts.append(cone(wide * 0.95, wide * 0.7, 0.14, (0.0, 0.0, -0.06), main))
    else:
        parts += [
            sphere(0.1, (x, y, z), badge)
            for (x, y, z), deg in ring(5, wide - 0.03, tall * 0.5, 60.0)
            if abs(deg - 270.0) > 30.0
        ]
    if coin(rng, 0.4):
        parts.append(
            capsule((-0.1, 0.12, tall * 0.6), (-0.3, 0.3, tall + 0.34), 0.05, METAL, material="metal")
        )
    return parts


@coated
def teapot(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A teapot: spout to the front, handle at the back, lid with a knob, at times dots or a band."""
    glaze = pick_color(rng, GLAZE)
    main, shade = palette.wear(glaze), palette.wear(mix(glaze, DARK, 0.15), "dark")
    style = pick(rng, TEAPOT.variants)
    wide, tall = uniform(rng, 0.52, 0.62), uniform(rng, 0.42, 0.56)
    knob = palette.against(GOLD, WHITE, DARK)
    trim = palette.against(WHITE, SCARLET, DARK, base=main)
    z, gloss = tall + 0.04, "glossy" if palette.material == "matte" else palette.material
    parts = [
        ellipsoid((wide, wide, tall), (0.0, 0.0, z), main, material=gloss),
        cylinder(wide * 0.58, 0.12, (0.0, 0.0, 0.06), shade),
        round_cone(
            (wide * 0.7, 0.0, z - 0.08), (wide + 0.26, 0.0, z + 0.14), 0.18, 0.10, main, material=gloss
        ),
        round_cone(
            (wide + 0.24, 0.0, z + 0.1),
            (wide + 0.40, 0.0, z + tall * 0.72),
            0.105,
            0.075,
            main,
            material=gloss,
        ),
        sphere(0.06, (wide + 0.42, 0.0, z + tall * 0.72 + 0.05), DARK),
        torus(tall * 0.62, 0.075, (-wide + 0.04, 0.0, z + 0.03), shade, rotate=(90.0, 0.0, 180.0), arc=220.0),
        ellipsoid((wide * 0.56, wide * 0.56, 0.14), (0.0, 0.0, z + tall * 0.88), shade, material=gloss),
        torus(wide * 0.52, 0.045, (0.0, 0.0, z + tall * 0.86), trim),
        sphere(0.1, (0.0, 0.0, z + tall + 0.12), knob, material=gloss),
    ]
    if style == "banded":
        parts.append(torus(wide - 0.035, 0.055, (0.0, 0.0, z), trim))
    elif style == "dotted":
        parts += [sphere(0.1, at, trim) for at, _ in ring(8, wide - 0.05, z, 22.5)]
    else:
        parts += [
            torus(wide * 0.94, 0.045, (0.0, 0.0, z - tall * 0.3), shade),
            torus(wide * 0.94, 0.045, (0.0, 0.0, z + tall * 0.3), shade),
        ]
    return parts


def _guitar_body(
    style: str, low: float, high: float, thick: float, main: tuple[float, float, float]
) -> list[Part]:
    turn = (0.0, 90.0, 0.0)
    parts = [
        cylinder(low, thick, (0.0, 0.0, low), main, material="glossy", rotate=turn, rounding=0.04),
        cylinder(high, thick, (0.0, 0.0, low * 1.95), main, material="glossy", rotate=turn, rounding=0.04),
        box((thick, high * 1.5, low), (0.0, 0.0, low * 1.5), main, material="glossy", rounding=0.04),
    ]
    if style == "electric":
        parts += both(
            lambda s: round_cone(
                (0.0, s * high * 0.6, low * 2.1),
                (0.0, s * high * 1.05, low * (2.6 if s > 0 else 2.4)),
                0.13,
                0.08,
                main,
            )
        )
    return parts


@coated
def guitar(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """An upright guitar with its strings to the front: acoustic with a sound hole, or electric with horns."""
    style = pick(rng, GUITAR.variants)
    natural = pick_color(rng, ((0.82, 0.54, 0.24), (0.66, 0.36, 0.16), (0.86, 0.64, 0.34)))
    main, neck = palette.wear(natural), palette.wear(DARK_WOOD, "dark")
    low, high = uniform(rng, 0.46, 0.54), uniform(rng, 0.34, 0.40)
    thick = uniform(rng, 0.24, 0.32) if style == "acoustic" else uniform(rng, 0.17, 0.22)
    length = uniform(rng, 0.8, 1.0)
    face, top = thick / 2, low * 1.95 + high
    dark = palette.against(DARK, CREAM, base=main)
    parts = _guitar_body(style, low, high, thick, main)
    parts += [
        box((0.13, 0.19, length + 0.3), (face - 0.03, 0.0, top + length / 2 - 0.15), neck),
        box((0.12, 0.28, 0.36), (face - 0.06, 0.0, top + length + 0.16), main, rounding=0.03),
        box((0.08, 0.34, 0.09), (face + 0.02, 0.0, low * 0.72), dark),
        box(
            (0.06, 0.1, top + length - low * 0.7), (face + 0.035, 0.0, (top + length + low * 0.7) / 2), CREAM
        ),
    ]
    for t in (0.05, 0.22):
        parts += [sphere(0.06, (face - 0.06, s * 0.19, top + length + t), METAL) for s in SIDES]
    if style == "acoustic":
        at = (face, 0.0, low * 1.62)
        parts.append(cylinder(0.18, 0.05, at, dark, rotate=(0.0, 90.0, 0.0)))
        parts.append(
            torus(0.19, 0.035, at, palette.against(CREAM, DARK_WOOD, base=main), rotate=(0.0, 90.0, 0.0))
        )
    else:
        parts += [
            box((0.06, 0.34, 0.1), (face + 0.01, 0.0, low * k), dark, rounding=0.02) for k in (1.2, 1.7)
        ]
        parts += [sphere(0.06, (face, 0.28, low * k), GOLD) for k in (0.55, 0.85)]
        parts.append(
            ellipsoid((0.04, 0.2, 0.32), (face, -0.2, low * 1.1), palette.against(WHITE, DARK, base=main))
        )
    parts.append(sphere(0.07, (0.0, 0.0, 0.0), METAL))
    return parts


@coated
def umbrella(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """An open umbrella: domed or pointed canopy, ribs, a stick whose crook bends to the front, a badge."""
    natural = pick_color(rng, (SCARLET, (0.16, 0.36, 0.70), (0.94, 0.76, 0.14)))
    main, rib = palette.wear(natural), palette.wear(mix(natural, DARK, 0.2), "dark")
    wide, tall, stick = uniform(rng, 0.84, 1.0), uniform(rng, 0.40, 0.58), uniform(rng, 1.0, 1.25)
    spokes = int(rng.integers(6, 9))
    waist = 0.74 if pick(rng, UMBRELLA.variants) == "domed" else 0.56
    top, mid = stick, stick - tall * 0.45
    badge = palette.against(WHITE, GOLD, DARK, base=main)
    parts = [
        cone(
            wide, wide * waist, tall * 0.55, (0.0, 0.0, mid - tall * 0.275), main, material=palette.material
        ),
        cone(
            wide * waist, 0.05, tall * 0.45, (0.0, 0.0, top - tall * 0.225), main, material=palette.material
        ),
        cylinder(0.05, stick, (0.0, 0.0, stick / 2 - 0.1), METAL),
        cylinder(0.045, 0.18, (0.0, 0.0, top + 0.06), DARK),
        torus(0.15, 0.065, (0.15, 0.0, -0.12), WOOD, rotate=(90.0, 90.0, 0.0), arc=190.0),
        cylinder(0.065, 0.26, (0.0, 0.0, 0.0), WOOD),
    ]
    low = mid - tall * 0.55
    for (x, y, z), _ in ring(spokes, wide, low + 0.02, 180.0 / spokes):
        knee = (x * waist, y * waist, mid)
        parts.append(capsule((x, y, z), knee, 0.04, rib))
        parts.append(capsule(knee, (0.0, 0.0, top), 0.04, rib))
    tilt = math.degrees(math.atan2(tall * 0.55, wide * (1.0 - waist)))
    at = (wide * (1.0 + waist) / 2, 0.0, (low + mid) / 2)
    parts.append(cylinder(0.15, 0.06, at, badge, rotate=(0.0, 90.0 - tilt, 0.0)))
    return parts


MUG = Category("mug", ("mug", "coffee mug", "mug of coffee"), "white", mug, ("banded", "footed", "dotted"))
TEAPOT = Category("teapot", ("teapot", "tea pot"), "blue", teapot, ("banded", "dotted", "ribbed"))
GUITAR = Category("guitar", ("guitar", "standing guitar"), "orange", guitar, ("acoustic", "electric"))
UMBRELLA = Category("umbrella", ("umbrella", "open umbrella"), "red", umbrella, ("domed", "pointed"))
