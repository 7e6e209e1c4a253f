"""Furry animals: corgi, cat, rabbit."""

from __future__ import annotations

import numpy as np

from plugins.procedural.categories.base import (
    BLACK,
    GOLD,
    RGB,
    ROSE,
    SCARLET,
    SIDES,
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
from plugins.procedural.parts import Part, box, capsule, cone, ellipsoid, round_cone, sphere, torus


def eyes(x: float, y: float, z: float, radius: float, color: RGB) -> list[Part]:
    """A pair of eyes at (x, +-y, z); white ones get black pupils."""
    pair = both(lambda s: sphere(radius, (x, s * y, z), color, material="glossy"))
    if color != WHITE:
        return pair
    look = (x + radius * 0.62, y + radius * 0.12)
    return pair + both(lambda s: sphere(radius * 0.62, (look[0], s * look[1], z), BLACK))


def _corgi_body(length: float, girth: float, leg: float, coat: RGB, rump: RGB, white: RGB) -> list[Part]:
    z = leg + girth * 0.78
    paw = (0.15, 0.12, 0.09)
    parts = [
        ellipsoid((length, girth, girth), (0.0, 0.0, z), coat),
        ellipsoid((0.40, girth * 1.08, girth * 1.05), (-length * 0.60, 0.0, z + 0.02), rump),
        ellipsoid((0.30, girth * 0.88, girth * 1.02), (length * 0.72, 0.0, z - 0.02), white),
        ellipsoid((length * 0.82, girth * 0.74, girth * 0.78), (0.02, 0.0, z - 0.15), white),
    ]
    for sx in (1.0, -1.0):
        x = sx * length * 0.68
        parts += [capsule((x, s * 0.19, z - 0.08), (x, s * 0.2, 0.14), 0.125, coat) for s in SIDES]
        parts += [ellipsoid(paw, (x + 0.05, s * 0.2, 0.09), white) for s in SIDES]
    # The fluffy white "pants" either side of the tail are what tells a corgi from behind.
    parts += both(lambda s: ellipsoid((0.16, 0.15, 0.22), (-length * 0.98, s * 0.15, z - 0.06), white))
    return parts


def _corgi_head(
    rng: np.random.Generator, at: float, z: float, coat: RGB, white: RGB, p: Palette
) -> list[Part]:
    ear, splay = uniform(rng, 0.30, 0.40), uniform(rng, 0.07, 0.15)
    inner = p.wear(ROSE) if p.natural else mix(p.light, WHITE, 0.35)
    parts = [
        ellipsoid((0.31, 0.37, 0.30), (at, 0.0, z), coat),
        round_cone((at + 0.16, 0.0, z - 0.09), (at + 0.39, 0.0, z - 0.11), 0.19, 0.115, white),
        ellipsoid((0.13, 0.07, 0.25), (at + 0.22, 0.0, z + 0.10), white, rotate=(0.0, -25.0, 0.0)),
        ellipsoid((0.075, 0.09, 0.07), (at + 0.49, 0.0, z - 0.05), BLACK, material="glossy"),
    ]
    parts += both(lambda s: ellipsoid((0.20, 0.15, 0.16), (at + 0.11, s * 0.22, z - 0.13), white))
    parts += eyes(at + 0.255, 0.17, z + 0.065, 0.062, p.against(BLACK, WHITE, base=coat))
    root, tip = z + 0.18, z + 0.18 + ear
    parts += both(
        lambda s: round_cone(
            (at - 0.04, s * 0.23, root), (at - 0.05, s * (0.23 + splay), tip), 0.185, 0.06, coat
        )
    )
    parts += both(
        lambda s: round_cone(
            (at + 0.07, s * 0.235, root), (at - 0.005, s * (0.23 + splay), tip - 0.07), 0.12, 0.04, inner
        )
    )
    return parts


@coated
def corgi(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A standing corgi: long low body, big ears, white chest, muzzle and paws, fluffy rump, short tail."""
    coat = palette.wear((0.90, 0.52, 0.20))
    rump = palette.wear((0.84, 0.46, 0.17), "dark")
    white = palette.against(WHITE, (0.80, 0.68, 0.54), base=coat)  # a white dog's markings are sandy
    length, girth, leg = uniform(rng, 0.56, 0.70), uniform(rng, 0.32, 0.37), uniform(rng, 0.22, 0.30)
    back = leg + girth * 0.78
    head_x, head_z = length * 0.72 + uniform(rng, 0.12, 0.22), back + uniform(rng, 0.42, 0.55)
    parts = _corgi_body(length, girth, leg, coat, rump, white)
    parts.append(
        round_cone((length * 0.6, 0.0, back + 0.05), (head_x - 0.04, 0.0, head_z - 0.06), 0.29, 0.24, coat)
    )
    parts += _corgi_head(rng, head_x, head_z, coat, white, palette)
    tail = uniform(rng, 0.10, 0.20)
    parts.append(
        round_cone(
            (-length * 0.95, 0.0, back + 0.18), (-length - 0.12, 0.0, back + 0.24 + tail), 0.12, 0.09, rump
        )
    )
    if coin(rng, 0.5):
        parts.append(sphere(0.085, (-length - 0.14, 0.0, back + 0.28 + tail), white))
    if coin(rng, 0.35):
        collar = palette.against(SCARLET, GOLD)
        parts.append(
            torus(0.24, 0.06, (length * 0.7 + 0.06, 0.0, back + 0.24), collar, rotate=(0.0, 28.0, 0.0))
        )
    if coin(rng, 0.4):
        parts.append(ellipsoid((0.09, 0.06, 0.045), (head_x + 0.38, 0.0, head_z - 0.21), ROSE))
    return parts


def _cat_head(rng: np.random.Generator, x: float, z: float, coat: RGB, pale: RGB, p: Palette) -> list[Part]:
    iris = pick_color(rng, ((0.55, 0.78, 0.20), (0.95, 0.76, 0.15), (0.30, 0.65, 0.90)))
    eye = p.against(iris, BLACK, WHITE, base=coat)
    ear = uniform(rng, 0.30, 0.40)
    parts = [ellipsoid((0.32, 0.37, 0.31), (x, 0.0, z), coat)]
    parts += both(lambda s: ellipsoid((0.14, 0.13, 0.11), (x + 0.24, s * 0.08, z - 0.10), pale))
    parts.append(sphere(0.055, (x + 0.37, 0.0, z - 0.04), p.against(ROSE, BLACK, base=pale)))
    parts += eyes(x + 0.25, 0.15, z + 0.07, 0.085, eye)
    parts += both(lambda s: ellipsoid((0.035, 0.035, 0.06), (x + 0.325, s * 0.155, z + 0.07), BLACK))
    parts += both(
        lambda s: cone(0.17, 0.03, ear, (x - 0.02, s * 0.22, z + 0.33), coat, rotate=(-14.0 * s, 0.0, 0.0))
    )
    parts += both(
        lambda s: cone(
            0.11, 0.02, ear * 0.72, (x + 0.07, s * 0.22, z + 0.31), ROSE, rotate=(-14.0 * s, 0.0, 0.0)
        )
    )
    return parts


def _cat_sitting(
    rng: np.random.Generator, coat: RGB, shade: RGB, pale: RGB
) -> tuple[list[Part], float, float]:
    tall = uniform(rng, 0.62, 0.78)
    parts = [
        round_cone((-0.18, 0.0, 0.36), (0.08, 0.0, tall), 0.38, 0.26, coat),
        ellipsoid((0.16, 0.19, 0.28), (0.22, 0.0, tall - 0.13), pale),
    ]
    parts += both(lambda s: capsule((0.24, s * 0.14, 0.50), (0.28, s * 0.15, 0.12), 0.105, coat))
    parts += both(lambda s: ellipsoid((0.15, 0.11, 0.09), (0.34, s * 0.15, 0.09), pale))
    parts += both(lambda s: ellipsoid((0.30, 0.16, 0.25), (-0.10, s * 0.30, 0.25), shade))
    parts += [
        round_cone((-0.48, 0.0, 0.14), (-0.62, -0.34, 0.12), 0.12, 0.10, shade),
        round_cone((-0.62, -0.34, 0.12), (-0.30, -0.58, 0.12), 0.10, 0.09, shade),
        round_cone((-0.30, -0.58, 0.12), (0.05, -0.56, 0.13), 0.09, 0.08, pale),
    ]
    return parts, 0.18, tall + 0.36


def _cat_standing(
    rng: np.random.Generator, coat: RGB, shade: RGB, pale: RGB
) -> tuple[list[Part], float, float]:
    length, z = uniform(rng, 0.42, 0.56), uniform(rng, 0.54, 0.66)
    parts = [capsule((-length, 0.0, z), (length, 0.0, z), 0.27, coat)]
    parts.append(ellipsoid((0.22, 0.20, 0.22), (length + 0.10, 0.0, z - 0.06), pale))
    parts += corners(
        lambda a, b: round_cone(
            (a * length, b * 0.15, z - 0.1), (a * length, b * 0.16, 0.1), 0.13, 0.10, coat
        )
    )
    parts += both(lambda s: ellipsoid((0.15, 0.11, 0.08), (length + 0.05, s * 0.16, 0.08), pale))
    rise = uniform(rng, 0.35, 0.6)
    parts += [
        round_cone((-length - 0.16, 0.0, z + 0.1), (-length - 0.34, 0.0, z + rise), 0.11, 0.09, shade),
        round_cone(
            (-length - 0.34, 0.0, z + rise), (-length - 0.20, 0.0, z + rise + 0.28), 0.09, 0.085, pale
        ),
    ]
    return parts, length + 0.20, z + 0.36


@coated
def cat(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A cat, sitting or standing, with pointed ears, a curling tail and sometimes tabby stripes."""
    natural = pick_color(
        rng, ((0.44, 0.43, 0.45), (0.88, 0.55, 0.24), (0.28, 0.22, 0.20), (0.78, 0.66, 0.50))
    )
    coat = palette.wear(natural)
    shade = palette.wear(mix(natural, BLACK, 0.25), "dark")
    pale = palette.against(WHITE, (0.80, 0.68, 0.54), base=coat)
    style = pick(rng, CAT.variants)
    parts, x, z = (_cat_sitting if style == "sitting" else _cat_standing)(rng, coat, shade, pale)
    parts += _cat_head(rng, x, z, coat, pale, palette)
    if coin(rng):
        stripe = mix(coat, BLACK, 0.4)
        parts += [
            box((0.3, 0.07, 0.08), (x - 0.04, dy, z + 0.27), stripe, rounding=0.03) for dy in (-0.09, 0.09)
        ]
        if style == "standing":
            parts += [
                torus(0.235, 0.05, (dx, 0.0, z - 0.36), stripe, rotate=(0.0, 90.0, 0.0))
                for dx in (-0.32, -0.08, 0.16)
            ]
    return parts


def _rabbit_ears(
    rng: np.random.Generator, x: float, z: float, coat: RGB, inner: RGB, lop: bool
) -> list[Part]:
    size = uniform(rng, 0.5, 0.72)
    if lop:
        out = both(
            lambda s: round_cone((x - 0.04, s * 0.22, z + 0.22), (x, s * 0.42, z - 0.2), 0.11, 0.13, coat)
        )
        return out + both(
            lambda s: round_cone(
                (x + 0.06, s * 0.30, z + 0.12), (x + 0.08, s * 0.42, z - 0.18), 0.06, 0.08, inner
            )
        )
    tilt = uniform(rng, 6.0, 16.0)
    up = z + 0.22 + size * 0.5
    out = both(
        lambda s: ellipsoid(
            (0.085, 0.13, size * 0.5), (x - 0.06, s * 0.17, up), coat, rotate=(-tilt * s, -8.0, 0.0)
        )
    )
    return out + both(
        lambda s: ellipsoid(
            (0.06, 0.08, size * 0.38), (x - 0.015, s * 0.17, up), inner, rotate=(-tilt * s, -8.0, 0.0)
        )
    )


@coated
def rabbit(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A crouching rabbit: egg body, long or lop ears, big hind feet, a cotton tail."""
    natural = pick_color(rng, ((0.72, 0.60, 0.48), (0.90, 0.88, 0.85), (0.50, 0.38, 0.28)))
    coat = palette.wear(natural)
    shade = palette.wear(mix(natural, BLACK, 0.12), "dark")
    pale = palette.against(WHITE, (0.80, 0.68, 0.54), base=coat)
    tall, fat = uniform(rng, 0.62, 0.82), uniform(rng, 0.36, 0.44)
    x, z = 0.30, tall + 0.34
    parts = [
        round_cone((-0.22, 0.0, 0.42), (0.18, 0.0, tall), fat, 0.26, coat),
        ellipsoid((0.18, 0.22, 0.28), (0.26, 0.0, tall - 0.16), pale),
        ellipsoid((0.33, 0.30, 0.29), (x, 0.0, z), coat),
        sphere(uniform(rng, 0.15, 0.20), (-0.22 - fat, 0.0, 0.38), pale),
        sphere(0.05, (x + 0.35, 0.0, z - 0.02), ROSE),
        box((0.06, 0.12, 0.12), (x + 0.28, 0.0, z - 0.22), WHITE, rounding=0.02),
    ]
    parts += both(lambda s: ellipsoid((0.13, 0.12, 0.10), (x + 0.24, s * 0.09, z - 0.10), pale))
    parts += eyes(x + 0.22, 0.19, z + 0.06, 0.065, palette.against(BLACK, WHITE, base=coat))
    parts += both(lambda s: ellipsoid((0.27, 0.15, 0.26), (-0.14, s * fat * 0.78, 0.30), shade))
    parts += both(lambda s: ellipsoid((0.28, 0.12, 0.09), (0.06, s * 0.32, 0.09), coat))
    parts += both(lambda s: capsule((0.32, s * 0.14, 0.46), (0.38, s * 0.14, 0.10), 0.095, coat))
    inner = ROSE if palette.natural else palette.against(ROSE, mix(palette.main, WHITE, 0.4))
    parts += _rabbit_ears(rng, x, z, coat, inner, lop=pick(rng, RABBIT.variants) == "lop-eared")
    return parts


CORGI = Category("corgi", ("corgi dog", "standing corgi dog", "corgi"), "orange", corgi, ("standing",))
CAT = Category("cat", ("cat", "kitten", "house cat"), "gray", cat, ("sitting", "standing"))
RABBIT = Category(
    "rabbit", ("rabbit", "bunny", "bunny rabbit"), "brown", rabbit, ("upright ears", "lop-eared")
)
