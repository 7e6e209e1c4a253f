"""Animals of the pond: duck, fish."""

from __future__ import annotations

import numpy as np

from plugins.procedural.categories.animals import eyes
from plugins.procedural.categories.base import (
    BLACK,
    CARROT,
    CREAM,
    GOLD,
    WHITE,
    Category,
    Palette,
    both,
    coated,
    coin,
    mix,
    pick,
    pick_color,
    uniform,
)
from plugins.procedural.parts import Part, cone, ellipsoid, prism, round_cone, sphere, torus


@coated
def duck(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A duck with an orange bill and feet: a bath toy, or a mallard with a neck ring and dark head."""
    style = pick(rng, DUCK.variants)
    mallard = style == "mallard"
    body = palette.wear((0.62, 0.52, 0.42) if mallard else (0.98, 0.82, 0.18))
    wing = palette.wear((0.45, 0.36, 0.28) if mallard else (0.94, 0.72, 0.10), "dark")
    head = palette.wear((0.08, 0.42, 0.24)) if mallard else body
    bill = palette.against(CARROT, GOLD, base=body) if not palette.natural else CARROT
    long, fat = uniform(rng, 0.58, 0.74), uniform(rng, 0.40, 0.48)
    neck = uniform(rng, 0.78, 0.98) + (0.12 if mallard else 0.0)
    size = uniform(rng, 0.29, 0.35)
    x = long * 0.62
    parts = [
        ellipsoid((long, fat, fat * 0.86), (0.0, 0.0, 0.46), body),
        round_cone((-long * 0.7, 0.0, 0.56), (-long - 0.22, 0.0, 0.86), 0.22, 0.07, body),
        round_cone((x - 0.08, 0.0, 0.55), (x, 0.0, neck), 0.25, 0.20, body),
        sphere(size, (x + 0.02, 0.0, neck + 0.14), head),
        ellipsoid((0.22, 0.17, 0.07), (x + size + 0.10, 0.0, neck + 0.10), bill, rotate=(0.0, -6.0, 0.0)),
        ellipsoid((0.16, 0.13, 0.05), (x + size + 0.06, 0.0, neck + 0.03), mix(bill, BLACK, 0.2)),
    ]
    eye = palette.against(BLACK, WHITE, base=head)
    parts += eyes(x + size * 0.72, size * 0.62, neck + 0.24, 0.07, eye)
    parts += both(
        lambda s: ellipsoid(
            (long * 0.58, 0.11, 0.22), (-0.12, s * fat * 0.92, 0.54), wing, rotate=(0.0, 14.0, 0.0)
        )
    )
    parts += both(
        lambda s: round_cone((-0.5, s * fat * 0.9, 0.62), (-0.72, s * fat * 0.8, 0.74), 0.10, 0.06, wing)
    )
    parts += both(lambda s: ellipsoid((0.20, 0.13, 0.06), (0.08, s * 0.2, 0.04), bill))
    parts += both(lambda s: cone(0.07, 0.07, 0.14, (0.0, s * 0.2, 0.1), bill))
    if mallard:
        parts.append(torus(0.19, 0.06, (x - 0.01, 0.0, neck - 0.1), WHITE))
    if coin(rng, 0.4):
        parts.append(
            round_cone(
                (x - 0.02, 0.0, neck + size + 0.1), (x - 0.16, 0.0, neck + size + 0.26), 0.07, 0.05, head
            )
        )
    return parts


@coated
def fish(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A plump swimming fish: tail and back fins, big eyes, lips, sometimes white bands."""
    style = pick(rng, FISH.variants)
    natural = pick_color(rng, ((0.98, 0.48, 0.10), (0.96, 0.70, 0.12), (0.20, 0.45, 0.85)))
    body, fin = palette.wear(natural), palette.wear(mix(natural, BLACK, 0.15), "dark")
    pale = palette.against(WHITE, CREAM, (0.15, 0.15, 0.2), base=body)
    long, tall, wide = uniform(rng, 0.66, 0.9), uniform(rng, 0.42, 0.56), uniform(rng, 0.28, 0.36)
    lobe = uniform(rng, 0.34, 0.46)
    parts = [
        ellipsoid((long, wide, tall), (0.0, 0.0, 0.0), body, material=palette.material),
        round_cone((-long * 0.7, 0.0, 0.0), (-long - 0.08, 0.0, 0.0), 0.2, 0.12, body),
        ellipsoid((lobe, 0.08, 0.17), (-long - 0.26, 0.0, lobe * 0.55), fin, rotate=(0.0, 48.0, 0.0)),
        ellipsoid((lobe, 0.08, 0.17), (-long - 0.26, 0.0, -lobe * 0.55), fin, rotate=(0.0, -48.0, 0.0)),
        ellipsoid((long * 0.5, 0.07, 0.26), (-0.08, 0.0, tall * 0.94), fin, rotate=(0.0, -8.0, 0.0)),
        ellipsoid((0.22, 0.07, 0.15), (-0.18, 0.0, -tall * 0.98), fin, rotate=(0.0, 30.0, 0.0)),
        torus(
            0.085,
            0.055,
            (long * 0.98, 0.0, -0.06),
            mix(body, (0.9, 0.35, 0.35), 0.4),
            rotate=(0.0, 90.0, 0.0),
        ),
    ]
    parts += both(
        lambda s: sphere(0.14, (long * 0.62, s * wide * 0.66, tall * 0.26), WHITE, material="glossy")
    )
    parts += both(lambda s: sphere(0.085, (long * 0.70, s * (wide * 0.66 + 0.075), tall * 0.27), BLACK))
    parts += both(
        lambda s: ellipsoid(
            (0.24, 0.06, 0.15), (0.08, s * (wide + 0.06), -0.12), fin, rotate=(20.0 * s, 25.0, 30.0 * s)
        )
    )
    if style == "banded":
        parts += [
            ellipsoid((0.075, wide * k + 0.02, tall * k + 0.02), (dx, 0.0, 0.0), pale)
            for dx, k in ((long * 0.38, 0.925), (-long * 0.25, 0.97))
        ]
    elif style == "spotted":
        parts += both(lambda s: sphere(0.11, (-0.05, s * (wide - 0.06), 0.16), pale))
        parts += both(lambda s: sphere(0.09, (-0.34, s * (wide - 0.10), 0.02), pale))
    else:
        parts += [
            prism(0.16, 0.2, 0.08, (dx, 0.0, tall + 0.16 - abs(dx + 0.1) * 0.3), fin)
            for dx in (-0.36, -0.12, 0.12)
        ]
    return parts


DUCK = Category("duck", ("duck", "duckling", "rubber duck"), "yellow", duck, ("bath toy", "mallard"))
FISH = Category("fish", ("fish", "goldfish", "tropical fish"), "orange", fish, ("banded", "spotted", "spiny"))
