"""Procedural scenes: several objects that stand on a coloured disc; one seed, one scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.procedural.captions import MATERIAL_WORDS, article, caption
from plugins.procedural.categories import CATEGORIES, COLORS
from plugins.procedural.dataset import sample_objects
from plugins.procedural.extents import bounding_box
from plugins.procedural.objects import ProceduralObject
from plugins.procedural.parts import Packed, Part, cylinder, pack
from plugins.procedural.sdf import distance_and_part
from plugins.procedural.splits import split_of

GROUND, DISC, THICKNESS = -0.34, 0.8, 0.05
"""Height of the ground, radius and thickness of the disc; with what stands on it, it lies within ``objects.RADIUS``."""
TALLEST = 0.75
GAP = 0.03
"""Between the circles round the objects' footprints."""
MOST = 4
"""Objects of a scene."""
GROUND_COLORS = ("green", "brown", "yellow", "blue", "gray", "white", "pink", "purple")
_FOOTPRINTS = {1: 0.5, 2: 0.38, 3: 0.33, 4: 0.29}  # the largest footprint's radius, by the number of objects
_TRIES = 60
_JITTER = 0.03


@dataclass(frozen=True)
class Placed:
    """An object in a scene: scaled by ``scale``, turned by ``yaw`` (radians) about z, its box's middle at ``at``.

    reach: radius of the circle round its footprint, which holds all of it.
    """

    object: ProceduralObject
    scale: float
    yaw: float
    at: tuple[float, float, float]
    reach: float

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its parts in the scene."""
        where = tuple(v / self.scale for v in self.at)
        return tuple(part.turned(self.yaw).transformed(where, self.scale) for part in self.object.parts)


@dataclass(frozen=True)
class ProceduralScene:
    """Objects on a ground.

    ground: the disc's colour, one of GROUND_COLORS. packed: all parts as kernel arrays, the disc first.
    """

    seed: int
    placed: tuple[Placed, ...]
    ground: str
    packed: Packed = field(repr=False, compare=False)

    def captions(self) -> list[str]:
        """Several phrasings, the plainest first ("a red mug and a blue house on a green ground")."""
        return [text for k in range(4) for text in _phrasings([p.object for p in self.placed], self.ground, k)]

    def sdf(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Signed distance [...] at points [..., 3], negative inside."""
        points = np.asarray(points)
        return distance_and_part(self.packed, points)[0].reshape(points.shape[:-1])


def _phrasings(objects: Sequence[ProceduralObject], ground: str, turn: int) -> list[str]:
    """Sentences whose nouns and words for materials are the ``turn``-th ones of each object."""
    told = []
    for one in objects:
        nouns, words = CATEGORIES[one.category].nouns, MATERIAL_WORDS[one.material]
        noun, word = nouns[turn % len(nouns)], words[turn % len(words)]
        told.append(caption("{a} {phrase}", noun, one.color, word))
    things = " and ".join(filter(None, (", ".join(told[:-1]), told[-1])))
    on = f"{things} on {article(ground)} {ground} ground"
    return [on, f"a 3d model of {on}", f"a photo of {things}"]


def _disc(color: Sequence[float]) -> Part:
    return cylinder(DISC, THICKNESS, (0.0, 0.0, GROUND - 0.5 * THICKNESS), color)


def _footprint(one: ProceduralObject) -> tuple[float, float]:
    """(radius, height) of the upright cylinder that holds an object."""
    low, high = bounding_box(one.packed)
    x, y, z = high - low
    return 0.5 * math.hypot(x, y), float(z)


def _free(rng: np.random.Generator, reaches: Sequence[float]) -> list[tuple[float, float]] | None:
    """Middles of circles of these radii that lie on the disc and apart, drawn one after another; None if they fail."""
    found: list[tuple[float, float]] = []
    for reach in reaches:
        for _ in range(_TRIES):
            far, angle = (DISC - reach) * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
            x, y = far * math.cos(angle), far * math.sin(angle)
            if all(
                math.hypot(x - a, y - b) >= reach + other + GAP for (a, b), other in zip(found, reaches, strict=False)
            ):
                found.append((x, y))
                break
        else:
            return None
    return found


def make_scene(
    seed: int,
    count: int | None = None,
    categories: Sequence[str] = (),
    held_out: bool = False,
    least: int = 2,
    most: int = MOST,
) -> ProceduralScene:
    """The scene of a seed.

    count: how many objects; None draws it from ``least`` to ``most``. categories: their kinds; none given are all.
    held_out: the first object wears a held-out pair. The objects' own seeds are drawn from the seed's split, so that
    scenes of two splits share no object. Raises UserError for a seed outside every split, or where no held-out pair is
    of those kinds.
    """  # fmt: skip
    split = split_of(seed)
    rng = np.random.Generator(np.random.PCG64([seed, 3]))
    many = int(rng.integers(least, most + 1)) if count is None else count
    objects = sample_objects(rng, many, split, categories)
    if held_out:
        objects[:1] = sample_objects(rng, 1, "heldout", categories)
    sizes, largest = [_footprint(one) for one in objects], _FOOTPRINTS[many]
    wanted = [min(r, largest * rng.uniform(0.8, 1.0), TALLEST * r / h) for r, h in sizes]
    while (middles := _free(rng, wanted)) is None:
        wanted = [0.95 * reach for reach in wanted]
    placed = []
    for one, (radius, height), reach, (x, y) in zip(objects, sizes, wanted, middles, strict=True):
        scale = reach / radius
        placed.append(Placed(one, scale, rng.uniform(0, 2 * math.pi), (x, y, GROUND + 0.5 * scale * height), reach))
    ground = GROUND_COLORS[int(rng.integers(len(GROUND_COLORS)))]
    color = np.clip(np.add(COLORS[ground], rng.uniform(-_JITTER, _JITTER, 3)), 0.02, 0.98)
    parts = [_disc(color.tolist()), *(part for one in placed for part in one.parts)]
    return ProceduralScene(seed, tuple(placed), ground, pack(parts))
