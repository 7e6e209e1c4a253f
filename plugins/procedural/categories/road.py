"""Road vehicles: race car, bus. They drive toward +x."""

from __future__ import annotations

import numpy as np

from plugins.procedural.categories.base import (
    DARK,
    GLASS,
    GOLD,
    LAMPLIGHT,
    METAL,
    RGB,
    RUBBER,
    SCARLET,
    WHITE,
    Category,
    Palette,
    both,
    coated,
    coin,
    pick,
    pick_color,
    uniform,
)
from plugins.procedural.parts import Part, box, cylinder, ellipsoid, round_cone, sphere


def wheel(x: float, y: float, radius: float, width: float, hub: RGB) -> list[Part]:
    """A wheel standing on z = 0 with its axle along y; the hub shows on both faces."""
    return [
        cylinder(radius, width, (x, y, radius), RUBBER, rotate=(90.0, 0.0, 0.0), rounding=0.03),
        cylinder(radius * 0.52, width + 0.04, (x, y, radius), hub, rotate=(90.0, 0.0, 0.0)),
    ]


def _hub(p: Palette) -> RGB:
    return METAL if p.natural else p.against(p.main, METAL, base=RUBBER)


def _formula(rng: np.random.Generator, p: Palette, body: RGB, accent: RGB) -> list[Part]:
    nose, track = uniform(rng, 0.95, 1.12), uniform(rng, 0.40, 0.47)
    front, rear = uniform(rng, 0.20, 0.24), uniform(rng, 0.24, 0.29)
    back = p.wear(body, "dark")
    gloss = "glossy"
    parts = [
        box((1.3, 0.42, 0.27), (-0.20, 0.0, 0.275), body, material=gloss, rounding=0.08),
        round_cone((0.30, 0.0, 0.27), (nose, 0.0, 0.17), 0.17, 0.085, body, material=gloss),
        box((0.62, 0.045, 0.04), (0.62, 0.0, 0.385), accent, rotate=(0.0, 13.0, 0.0)),
        round_cone((-0.22, 0.0, 0.46), (-0.82, 0.0, 0.32), 0.16, 0.10, body, material=gloss),
        ellipsoid((0.24, 0.15, 0.10), (0.12, 0.0, 0.38), DARK),
        sphere(0.115, (0.06, 0.0, 0.46), p.against(WHITE, GOLD)),
        box((0.06, 0.16, 0.06), (0.15, 0.0, 0.48), GLASS),
        box((0.24, 1.04, 0.07), (nose + 0.02, 0.0, 0.12), body, material=gloss),
        box((0.22, 0.86, 0.08), (-1.0, 0.0, 0.62), body, material=gloss),
        box((0.10, 0.12, 0.34), (-0.94, 0.0, 0.46), DARK),
    ]
    parts += both(
        lambda s: box((0.76, 0.28, 0.27), (-0.20, s * 0.29, 0.255), back, material=gloss, rounding=0.09)
    )
    parts += both(lambda s: box((0.28, 0.07, 0.2), (nose + 0.02, s * 0.52, 0.16), back))
    parts += both(lambda s: box((0.32, 0.07, 0.34), (-1.0, s * 0.44, 0.54), accent))
    hub = _hub(p)
    for s in (1.0, -1.0):
        parts += wheel(0.62, s * track, front, 0.2, hub)
        parts += wheel(-0.72, s * (track + 0.02), rear, 0.26, hub)
    return parts


def _touring(rng: np.random.Generator, p: Palette, body: RGB, accent: RGB) -> list[Part]:
    wide, tall, cab = uniform(rng, 0.86, 0.98), uniform(rng, 0.30, 0.36), uniform(rng, -0.24, -0.08)
    rim, hub = uniform(rng, 0.22, 0.26), _hub(p)
    gloss = "glossy"
    dark = p.wear(body, "dark")
    z = tall / 2 + 0.13
    parts = [
        box((2.0, wide, tall * 0.8), (0.0, 0.0, z), body, material=gloss, rounding=0.1),
        ellipsoid((0.62, wide * 0.49, 0.15), (0.55, 0.0, z + 0.08), body, material=gloss),
        box((0.55, wide * 0.96, 0.2), (-0.7, 0.0, z + 0.1), body, material=gloss, rounding=0.09),
        ellipsoid((0.52, wide * 0.38, 0.30), (cab, 0.0, tall + 0.13), GLASS, material="glossy"),
        ellipsoid((0.42, wide * 0.33, 0.17), (cab - 0.05, 0.0, tall + 0.30), body, material=gloss),
        box((0.26, wide * 1.04, 0.08), (-0.98, 0.0, tall + 0.42), dark, material=gloss),
        box((0.14, wide * 0.98, 0.06), (0.97, 0.0, 0.12), DARK),
        box((0.6, 0.16, 0.05), (0.58, 0.0, z + 0.215), accent, rotate=(0.0, 5.0, 0.0)),
        ellipsoid((0.36, 0.085, 0.15), (cab - 0.05, 0.0, tall + 0.335), accent),
        box((0.06, wide * 0.42, 0.08), (0.985, 0.0, z - 0.02), DARK),
    ]
    parts += both(lambda s: box((0.10, 0.08, 0.3), (-0.94, s * wide * 0.36, tall + 0.28), DARK))
    parts += both(lambda s: ellipsoid((0.10, 0.12, 0.07), (0.93, s * wide * 0.36, z + 0.05), LAMPLIGHT))
    parts += both(lambda s: box((0.06, 0.2, 0.08), (-0.985, s * wide * 0.3, z + 0.06), SCARLET))
    for s in (1.0, -1.0):
        parts += wheel(0.60, s * wide * 0.45, rim, 0.2, hub)
        parts += wheel(-0.62, s * wide * 0.45, rim + 0.02, 0.22, hub)
    if coin(rng):
        parts += both(
            lambda s: cylinder(0.13, 0.03, (-0.05, s * wide * 0.5, z), accent, rotate=(90.0, 0.0, 0.0))
        )
    return parts


@coated
def race_car(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A race car: open wheels with wings and a driver, or a low GT with a spoiler."""
    natural = pick_color(rng, ((0.86, 0.10, 0.08), (0.92, 0.14, 0.10), (0.78, 0.08, 0.10)))
    body = palette.wear(natural)
    accent = palette.against(WHITE, GOLD, DARK, base=body)
    style = pick(rng, RACE_CAR.variants)
    return (_formula if style == "open wheel" else _touring)(rng, palette, body, accent)


def _bus_sides(long: float, wide: float, z: float, height: float, count: int) -> list[Part]:
    step = long * 0.86 / count
    parts: list[Part] = []
    for k in range(count):
        x = -long * 0.45 + step * (k + 0.5)
        parts.append(
            box((step * 0.74, wide + 0.05, height), (x, 0.0, z), GLASS, material="glossy", rounding=0.02)
        )
    return parts


@coated
def bus(rng: np.random.Generator, palette: Palette) -> list[Part]:
    """A bus: city, double-decker or bonneted school bus, windscreen and lamps at the front."""
    style = pick(rng, BUS.variants)
    natural = {"city": (0.90, 0.32, 0.12), "double-decker": (0.80, 0.10, 0.10), "school": (0.98, 0.74, 0.10)}[
        style
    ]
    body, trim = palette.wear(natural), palette.against(WHITE, DARK)
    long, wide = uniform(rng, 1.8, 2.15), uniform(rng, 0.72, 0.82)
    tall = uniform(rng, 0.72, 0.84) * (1.6 if style == "double-decker" else 1.0)
    base, front = 0.16, long / 2
    z = base + tall / 2
    pane = 0.24
    low = base + 0.34 + pane / 2 if style == "double-decker" else base + tall - 0.22
    parts = [
        box((long, wide, tall), (0.0, 0.0, z), body, material=palette.material, rounding=0.09),
        box((0.06, wide * 0.80, 0.34), (front, 0.0, low + 0.02), GLASS, material="glossy", rounding=0.02),
        box((0.06, wide * 0.7, 0.24), (-front, 0.0, low), GLASS, material="glossy", rounding=0.02),
        box((long * 0.98, wide + 0.03, 0.07), (0.0, 0.0, base + 0.22), trim),
        box((0.1, wide * 0.9, 0.1), (front, 0.0, base + 0.05), DARK),
        box(
            (0.24, 0.06, tall * 0.62 if style != "double-decker" else 0.5),
            (front - 0.22, -wide / 2, base + 0.3),
            DARK,
        ),
    ]
    count = int(rng.integers(4, 6))
    parts += _bus_sides(long, wide, low, pane, count)
    if style == "double-decker":
        high = base + tall - 0.26
        parts += _bus_sides(long, wide, high, pane, count)
        parts.append(box((0.06, wide * 0.80, 0.26), (front, 0.0, high), GLASS, material="glossy"))
    elif style == "school":
        parts.append(
            box(
                (0.46, wide * 0.84, tall * 0.52), (front + 0.18, 0.0, base + tall * 0.26), body, rounding=0.08
            )
        )
        front += 0.4
    else:
        parts.append(box((long * 0.4, wide * 0.5, 0.1), (-0.2, 0.0, base + tall + 0.03), trim, rounding=0.03))
    parts += both(lambda s: sphere(0.075, (front, s * wide * 0.32, base + 0.2), LAMPLIGHT, material="glossy"))
    for s in (1.0, -1.0):
        parts += wheel(long * 0.30, s * wide * 0.44, 0.19, 0.16, METAL)
        parts += wheel(-long * 0.30, s * wide * 0.44, 0.19, 0.16, METAL)
    return parts


RACE_CAR = Category(
    "race car", ("race car", "racing car", "sports race car"), "red", race_car, ("open wheel", "GT")
)
BUS = Category("bus", ("bus", "passenger bus"), "yellow", bus, ("city", "double-decker", "school"))
