"""Garden and toy box: tree, cactus, mushroom, snowman, robot."""

from __future__ import annotations

import math

import numpy as np

from plugins.procedural.categories.base import (
    BLACK,
    CARROT,
    CREAM,
    DARK,
    DARK_WOOD,
    GOLD,
    GRASS,
    LEAF,
    METAL,
    RGB,
    ROSE,
    SCARLET,
    WHITE,
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
from plugins.procedural.parts import Part, box, capsule, cone, cylinder, ellipsoid, round_cone, sphere, torus


def _round_crown(rng: np.random.Generator, z: float, leaf: RGB, light: RGB, dark: RGB) -> list[Part]:
    size = uniform(rng, 0.48, 0.58)
    parts = [
        sphere(size, (0.0, 0.0, z + size * 0.7), leaf),
        sphere(size * 0.6, (0.05, 0.1, z + size * 1.5), light),
    ]
    count = int(rng.integers(4, 7))
    for k, (at, _) in enumerate(ring(count, size * 0.68, z + size * 0.5, uniform(rng, 0.0, 60.0))):
        up = uniform(rng, -0.06, 0.3)
        parts.append(
            sphere(size * uniform(rng, 0.48, 0.62), (at[0], at[1], at[2] + up), dark if k % 2 else light)
        )
    return parts


def _conifer(rng: np.random.Generator, z: float, leaf: RGB, light: RGB, dark: RGB) -> list[Part]:
    tiers, wide = int(rng.integers(3, 5)), uniform(rng, 0.58, 0.72)
    parts: list[Part] = []
    level = z
    for k in range(tiers):
        r, h = wide * (1.0 - 0.75 * k / tiers), 0.62 - 0.05 * k
        parts.append(
            cone(
                r,
                0.05 + 0.1 * (k < tiers - 1),
                h,
                (0.0, 0.0, level + h / 2),
                (leaf, dark, light)[k % 3],
                rounding=0.03,
            )
        )
        level += h * 0.62
    return parts


@coated
def tree(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A tree, round-crowned or conifer, with a bird house on the front and fruit or tiers."""
    green = pick_color(rng, (LEAF, (0.28, 0.58, 0.20), (0.14, 0.44, 0.22)))
    leaf, light = palette.wear(green), palette.wear(mix(green, GOLD, 0.2), "light")
    dark = palette.wear(mix(green, BLACK, 0.2), "dark")
    bark = palette.against(DARK_WOOD, (0.55, 0.36, 0.2))
    style = pick(rng, TREE.variants)
    trunk, foot = uniform(rng, 0.5, 0.72), uniform(rng, 0.14, 0.19)
    parts = [cone(foot * 1.25, foot * 0.85, trunk + 0.2, (0.0, 0.0, trunk / 2 + 0.05), bark)]
    parts += [
        round_cone((0.0, 0.0, 0.1), (x, y, 0.04), 0.11, 0.06, bark)
        for (x, y, _), _ in ring(3, foot + 0.14, 0.0, 60.0)
    ]
    z = trunk if style == "round" else trunk * 0.7
    parts += (_round_crown if style == "round" else _conifer)(rng, z, leaf, light, dark)
    # Seen from above the trunk is hidden, so a conifer wears its bird house on the lowest tier.
    hut, x, z_hut = palette.against(SCARLET, GOLD), foot + 0.12, trunk * 0.5
    if style == "conifer":
        x, z_hut = 0.52, z + 0.2
    parts += [
        box((0.24, 0.2, 0.22), (x, 0.0, z_hut), hut),
        box((0.32, 0.28, 0.06), (x + 0.02, 0.0, z_hut + 0.13), CREAM),
        sphere(0.06, (x + 0.11, 0.0, z_hut + 0.01), BLACK),
        sphere(0.08, (foot + 0.1, 0.16, 0.05), GRASS),
    ]
    if style == "round":
        fruit = palette.against(SCARLET, GOLD)
        parts += [
            sphere(0.1, (0.62 * math.cos(a), 0.62 * math.sin(a), z + h), fruit)
            for a, h in ((0.5, 0.5), (-0.5, 0.3), (0.05, 0.26))[: int(rng.integers(1, 4))]
        ]
    return parts


@coated
def cactus(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A potted cactus: ribbed column with bent arms or a round ball, a flower leaning to the front."""
    green = pick_color(rng, ((0.26, 0.58, 0.28), (0.34, 0.62, 0.30), (0.18, 0.48, 0.30)))
    main, rib = palette.wear(green), palette.wear(mix(green, BLACK, 0.15), "dark")
    pot = palette.against((0.78, 0.40, 0.24), CREAM) if palette.natural else palette.wear(CREAM, "dark")
    wide = uniform(rng, 0.34, 0.42)
    parts = [
        cone(wide * 0.72, wide, 0.42, (0.0, 0.0, 0.21), pot),
        cylinder(wide * 1.14, 0.13, (0.0, 0.0, 0.44), mix(pot, BLACK, 0.1), rounding=0.02),
        cylinder(wide * 0.95, 0.06, (0.0, 0.0, 0.50), (0.30, 0.20, 0.14)),
        cylinder(
            0.1,
            0.05,
            (wide * 0.86, 0.0, 0.24),
            palette.against(CREAM, DARK, base=pot),
            rotate=(0.0, 97.0, 0.0),
        ),
    ]
    bloom = palette.against(ROSE, GOLD, WHITE, base=main)
    if pick(rng, CACTUS.variants) == "ball":
        r = uniform(rng, 0.40, 0.48)
        parts.append(ellipsoid((r, r, r * 1.1), (0.0, 0.0, 0.5 + r * 0.85), main))
        parts += [
            torus(r * 0.92, 0.07, (0.0, 0.0, 0.5 + r * 0.85), rib, rotate=(90.0, 0.0, 45.0 * k))
            for k in range(4)
        ]
        top = 0.5 + r * 1.9
    else:
        r, tall = uniform(rng, 0.20, 0.25), uniform(rng, 1.25, 1.55)
        parts.append(capsule((0.0, 0.0, 0.5), (0.0, 0.0, tall), r, main))
        parts += [capsule((x, y, 0.55), (x, y, tall), 0.06, rib) for (x, y, _), _ in ring(6, r - 0.015, 0.0)]
        top = tall + r
        for s in (1.0, -1.0)[: int(rng.integers(1, 3))]:
            z, out = uniform(rng, 0.78, 1.0), uniform(rng, 0.42, 0.52)
            up = z + uniform(rng, 0.26, 0.42)
            parts.append(capsule((0.0, 0.0, z), (0.0, s * out, z), 0.13, main))
            parts.append(capsule((0.0, s * out, z), (0.0, s * out, up), 0.13, main))
    parts += [sphere(0.1, (0.14 + x * 0.6, y, top + 0.0), bloom) for (x, y, _), _ in ring(4, 0.12, 0.0)]
    parts.append(sphere(0.08, (0.20, 0.0, top + 0.09), GOLD))
    return parts


@coated
def mushroom(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A toadstool house: spotted cap, fat stem, a little door and window at the front."""
    cap = palette.wear(pick_color(rng, (SCARLET, (0.86, 0.26, 0.12), (0.66, 0.38, 0.20))))
    under = palette.wear(CREAM, "light")
    stem = palette.wear((0.95, 0.91, 0.82), "light")
    spot = palette.against(WHITE, SCARLET, base=cap)
    wide, tall, fat = uniform(rng, 0.68, 0.86), uniform(rng, 0.58, 0.8), uniform(rng, 0.28, 0.36)
    high = uniform(rng, 0.36, 0.5)
    parts = [
        cone(fat * 1.22, fat * 0.9, tall, (0.0, 0.0, tall / 2), stem, rounding=0.05),
        cylinder(wide * 0.9, 0.1, (0.0, 0.0, tall - 0.01), under),
    ]
    if pick(rng, MUSHROOM.variants) == "domed":
        parts += [
            cone(wide, wide * 0.82, high * 0.5, (0.0, 0.0, tall + high * 0.25), cap, rounding=0.05),
            ellipsoid((wide * 0.84, wide * 0.84, high * 0.75), (0.0, 0.0, tall + high * 0.42), cap),
        ]
        lift = high * 0.42 + high * 0.75
    else:
        parts.append(cone(wide, 0.12, high * 1.5, (0.0, 0.0, tall + high * 0.75), cap, rounding=0.06))
        lift = high * 1.5
    parts.append(sphere(0.13, (0.0, 0.0, tall + lift - 0.06), spot))
    for n, radius, level in ((6, 0.86, 0.36), (4, 0.5, 0.7)):
        k = 1.0 if lift < high * 1.3 else 0.78
        for at, _ in ring(n, wide * radius * k, tall + lift * level, uniform(rng, 0.0, 60.0)):
            parts.append(sphere(uniform(rng, 0.09, 0.13), at, spot))
    door = palette.against(DARK_WOOD, WHITE, base=stem)
    x = fat * 1.1
    parts += [
        box((0.12, 0.24, 0.26), (x, 0.0, 0.14), door),
        cylinder(0.12, 0.12, (x, 0.0, 0.27), door, rotate=(0.0, 90.0, 0.0)),
        sphere(0.04, (x + 0.07, 0.07, 0.16), GOLD),
        sphere(0.09, (fat * 0.2, fat * 1.2, 0.06), GRASS),
        sphere(0.11, (-0.1, -fat * 1.25, 0.06), GRASS),
    ]
    return parts


def _hat(tall: bool, top: float, r: float, hat: RGB, cloth: RGB, palette: Palette) -> list[Part]:
    """A top hat, or a knitted cap with a bobble, on a head of radius r."""
    if tall:
        return [
            cylinder(r * 1.05, 0.08, (0.0, 0.0, top), hat),
            cylinder(r * 0.66, 0.38, (0.0, 0.0, top + 0.2), hat),
            cylinder(r * 0.69, 0.09, (0.0, 0.0, top + 0.1), palette.against(SCARLET, WHITE, base=hat)),
        ]
    fur = palette.against(WHITE, GOLD, base=cloth)
    return [
        cone(r * 0.9, r * 0.42, 0.34, (0.0, 0.0, top + 0.1), cloth, rounding=0.05),
        torus(r * 0.84, 0.08, (0.0, 0.0, top - 0.04), fur),
        sphere(0.13, (0.0, 0.0, top + 0.34), fur),
    ]


def _twigs(low: float, chest: float, lift: float, bark: RGB) -> list[Part]:
    hand = (low + 0.42, chest + lift)
    arms = both(lambda s: capsule((0.0, s * low * 0.5, chest), (0.08, s * hand[0], hand[1]), 0.055, bark))
    fork = (low + 0.3, chest + lift * 0.75)
    return arms + both(
        lambda s: capsule((0.06, s * fork[0], fork[1]), (0.2, s * (low + 0.4), hand[1]), 0.045, bark)
    )


@coated
def snowman(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A snowman: two or three balls, carrot nose to the front, hat, scarf, twig arms, buttons."""
    snow = palette.wear((0.94, 0.95, 0.97), "light")
    cloth = palette.wear(pick_color(rng, (SCARLET, (0.16, 0.40, 0.72), (0.20, 0.52, 0.28))), "dark")
    hat = palette.wear(DARK, "dark")
    coal = palette.against(BLACK, WHITE, base=snow)
    low, three = uniform(rng, 0.46, 0.54), pick(rng, SNOWMAN.variants) == "three balls"
    parts = [sphere(low, (0.0, 0.0, low * 0.9), snow)]
    z, r = low * 0.9, low
    for k in (0.74, 0.74) if three else (0.72,):
        z, r = z + r * 0.78 + r * k * 0.55, r * k
        parts.append(sphere(r, (0.0, 0.0, z), snow))
    chest = z - r * 1.3
    parts += both(lambda s: sphere(0.06, (r * 0.82, s * r * 0.38, z + r * 0.32), coal))
    parts.append(cone(0.1, 0.02, 0.36, (r + 0.14, 0.0, z + 0.02), CARROT, rotate=(0.0, 90.0, 0.0)))
    parts += [sphere(0.065, (low * 0.97, 0.0, low * (0.9 + t)), coal) for t in (0.05, 0.32)]
    parts.append(torus(r * 0.82, 0.1, (0.0, 0.0, z - r * 0.78), cloth))
    parts.append(
        box(
            (0.1, 0.16, 0.42),
            (r * 0.95, 0.16, z - r * 0.78 - 0.2),
            cloth,
            rotate=(0.0, -14.0, 0.0),
            rounding=0.03,
        )
    )
    bark = palette.against(DARK_WOOD, (0.62, 0.42, 0.24), base=snow)
    parts += _twigs(low, chest, uniform(rng, 0.1, 0.4), bark)
    return parts + _hat(coin(rng, 0.6), z + r * 0.82, r, hat, cloth, palette)


def _robot_head(rng: np.random.Generator, z: float, main: RGB, light: RGB, p: Palette) -> list[Part]:
    glow = p.against((0.30, 0.85, 0.95), GOLD, base=main)
    wide = uniform(rng, 0.52, 0.68)
    parts = [cylinder(0.12, 0.16, (0.0, 0.0, z - 0.02), METAL)]
    if pick(rng, ROBOT.variants) == "round head":
        parts.append(ellipsoid((0.30, wide / 2, 0.28), (0.0, 0.0, z + 0.28), main, material=p.material))
    else:
        parts.append(box((0.5, wide, 0.44), (0.0, 0.0, z + 0.26), main, material=p.material, rounding=0.07))
    parts.append(box((0.1, wide * 0.74, 0.2), (0.24, 0.0, z + 0.30), DARK, rounding=0.04))
    parts += both(lambda s: sphere(0.085, (0.28, s * wide * 0.2, z + 0.30), glow, material="glossy"))
    parts.append(box((0.1, wide * 0.4, 0.07), (0.24, 0.0, z + 0.12), p.against(WHITE, DARK, base=main)))
    parts += both(
        lambda s: cylinder(0.1, 0.12, (0.0, s * wide * 0.52, z + 0.28), light, rotate=(90.0, 0.0, 0.0))
    )
    parts.append(cylinder(0.04, 0.24, (0.0, 0.0, z + 0.58), METAL))
    parts.append(sphere(0.09, (0.0, 0.0, z + 0.72), p.against(SCARLET, GOLD)))
    return parts


@coated
def robot(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A toy robot: boxy body with a dial on the chest, bright eyes, antenna, claws, big feet."""
    natural = pick_color(rng, ((0.66, 0.70, 0.74), (0.50, 0.62, 0.68), (0.80, 0.78, 0.70)))
    main, light = palette.wear(natural), palette.wear(mix(natural, WHITE, 0.2), "light")
    shade = palette.wear(mix(natural, BLACK, 0.25), "dark")
    wide, tall, leg = uniform(rng, 0.62, 0.8), uniform(rng, 0.6, 0.76), uniform(rng, 0.28, 0.42)
    z = leg + 0.1 + tall / 2
    panel = palette.against(CREAM, DARK, base=main)
    lift = uniform(rng, -0.1, 0.25)
    parts = [
        box((0.5, wide, tall), (0.0, 0.0, z), main, material=palette.material, rounding=0.06),
        box((0.08, wide * 0.62, tall * 0.46), (0.24, 0.0, z + 0.04), panel, rounding=0.02),
        cylinder(0.1, 0.08, (0.28, 0.1, z + 0.08), palette.against(SCARLET, GOLD), rotate=(0.0, 90.0, 0.0)),
        box((0.08, 0.1, 0.1), (0.27, -0.1, z + 0.08), GOLD),
        box((0.12, wide * 0.6, tall * 0.5), (-0.28, 0.0, z), shade, rounding=0.04),
    ]
    parts += both(
        lambda s: capsule((0.0, s * wide * 0.27, leg + 0.14), (0.0, s * wide * 0.27, 0.14), 0.12, shade)
    )
    parts += both(lambda s: box((0.5, 0.28, 0.18), (0.08, s * wide * 0.27, 0.09), main, rounding=0.05))
    arm = wide / 2 + 0.14
    parts += both(lambda s: sphere(0.15, (0.0, s * (arm - 0.04), z + tall * 0.34), light))
    parts += both(
        lambda s: capsule(
            (0.0, s * arm, z + tall * 0.3), (0.16, s * (arm + 0.04), z - 0.14 + lift * 0.5), 0.09, shade
        )
    )
    parts += both(
        lambda s: torus(
            0.1,
            0.055,
            (0.26, s * (arm + 0.04), z - 0.2 + lift * 0.6),
            METAL,
            rotate=(90.0, 0.0, 0.0),
            arc=270.0,
        )
    )
    return parts + _robot_head(rng, z + tall / 2 + 0.04, main, light, palette)


TREE = Category("tree", ("tree", "tree with a bird house"), "green", tree, ("round", "conifer"))
CACTUS = Category(
    "cactus", ("cactus", "cactus in a pot", "potted cactus"), "green", cactus, ("column", "ball")
)
MUSHROOM = Category(
    "mushroom", ("mushroom", "toadstool", "mushroom house"), "red", mushroom, ("domed", "pointed")
)
SNOWMAN = Category(
    "snowman", ("snowman", "snowman with a hat"), "white", snowman, ("two balls", "three balls")
)
ROBOT = Category("robot", ("robot", "toy robot"), "gray", robot, ("round head", "square head"))
