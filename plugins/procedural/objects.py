"""Procedural objects: one seed, one object, the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError, did_you_mean
from plugins.procedural.captions import captions
from plugins.procedural.categories import CATEGORIES, COLORS, Palette
from plugins.procedural.extents import bounding_box, bounding_radius
from plugins.procedural.parts import MATERIALS, Packed, Part, pack
from plugins.procedural.sdf import distance_and_part, distance_grid, gradient
from plugins.procedural.splits import is_held_out, split_of

RADIUS = 0.9
NATURAL_SHARE = 0.35
MATERIAL_SHARES = (0.70, 0.15, 0.15)  # matte, glossy, metal
NATURAL = "natural"
Color = tuple[float, float, float]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class ProceduralObject:
    """A captioned object, its bounding box centred on the origin and its farthest point at RADIUS.

    color: the colour its caption names, None for the natural look. palette_color: the sRGB of the main surfaces.
    packed: the parts as kernel arrays (see `parts.pack`).
    """

    seed: int
    category: str
    color: str | None
    material: str
    palette_color: Color
    parts: tuple[Part, ...]
    packed: Packed = field(repr=False, compare=False)

    def captions(self) -> list[str]:
        """Several phrasings, the plainest first ("a red mug")."""
        return captions(CATEGORIES[self.category].nouns, self.color, self.material)

    def sdf(self, points: NDArray[Any]) -> F64:
        """Signed distance [...] at points [..., 3], negative inside (see `sdf` for what is exact)."""
        points = np.asarray(points)
        return distance_and_part(self.packed, points)[0].reshape(points.shape[:-1])

    def colors(self, points: NDArray[Any]) -> NDArray[np.float32]:
        """sRGB [N,3] of the part nearest to each point [N,3], unshaded."""
        return self.packed["color"][distance_and_part(self.packed, points)[1]]

    def mesh(self, resolution: int = 96) -> tuple[F64, NDArray[np.int64], NDArray[np.float32]]:
        """Marching cubes on a grid of resolution^3 over [-1, 1]^3: vertices [V,3], faces [F,3] wound outwards, vertex
        colours [V,3] sRGB. Vertices are moved onto the exact surface; details thinner than a cell may be lost."""
        from skimage.measure import marching_cubes

        grid = distance_grid(self.packed, resolution, 1.0)
        vertices, faces, _, _ = marching_cubes(grid, 0.0, gradient_direction="descent")
        vertices = _project(self.packed, vertices.astype(np.float64) * (2.0 / (resolution - 1)) - 1.0, 1)
        return vertices, faces.astype(np.int64), self.colors(vertices)

    def surface(self, n: int, seed: int = 0) -> tuple[F64, F64, NDArray[np.float32]]:
        """n points spread evenly over the surface: points [n,3], outward unit normals [n,3], colours [n,3] sRGB.

        Drawn by area from a marching-cubes mesh, then moved onto the exact surface.
        """
        vertices, faces, _ = self.mesh(80)
        corners = vertices[faces]
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        rng = np.random.Generator(np.random.PCG64([seed, self.seed]))
        chosen = corners[rng.choice(len(faces), n, p=areas / areas.sum())]
        u, v = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
        points = (1 - u) * chosen[:, 0] + u * (1 - v) * chosen[:, 1] + u * v * chosen[:, 2]
        points = _project(self.packed, points, 3)
        return points, gradient(self.packed, points), self.colors(points)


def _project(packed: Packed, points: F64, steps: int) -> F64:
    for _ in range(steps):
        points = points - gradient(packed, points) * distance_and_part(packed, points)[0][:, None]
    return points


def _normalised(parts: list[Part]) -> tuple[Part, ...]:
    """Centre the bounding box on the origin and put the farthest point at RADIUS."""
    packed = pack(parts)
    low, high = bounding_box(packed)
    centre = 0.5 * (low + high)
    scale = RADIUS / bounding_radius(packed, centre)
    offset = tuple(float(-c) for c in centre)
    return tuple(part.transformed(offset, scale) for part in parts)


def _mix(color: Color, other: float, share: float) -> Color:
    r, g, b = (channel + share * (other - channel) for channel in color)
    return r, g, b


def _palette(rng: np.random.Generator, color: str, natural: bool, material: str) -> Palette:
    """The named colour, jittered by at most 0.03 per channel, and two shades of it.

    The shades stay near: a pale red already reads pink, a dark orange brown.
    """
    jitter = rng.uniform(-0.03, 0.03, 3)
    r, g, b = (min(max(c + float(d), 0.02), 0.98) for c, d in zip(COLORS[color], jitter, strict=True))
    main = (r, g, b)
    return Palette(main, _mix(main, 1.0, 0.18), _mix(main, 0.0, 0.22), natural, material)


def _checked(value: str, known: tuple[str, ...], what: str) -> str:
    if value not in known:
        raise UserError(f"Unknown {what} '{value}' for a procedural object.{did_you_mean(value, known)}")
    return value


def _draw(seed: int, category: str | None, color: str | None, material: str | None) -> tuple[str, str, str]:
    """Fill in what was not asked for; a colour drawn for a train or val seed is never a held-out one."""
    rng = np.random.Generator(np.random.PCG64([seed, 0]))
    names, colors = tuple(CATEGORIES), tuple(COLORS)
    drawn, roll = names[int(rng.integers(len(names)))], rng.random()
    category = drawn if category is None else _checked(category, names, "category")
    material = (
        MATERIALS[int(np.searchsorted(np.cumsum(MATERIAL_SHARES)[:2], roll, side="right"))]
        if material is None
        else _checked(material, MATERIALS, "material")
    )
    seen_in_training = split_of(seed) in ("train", "val")
    if color is not None:
        _checked(color, (*colors, NATURAL), "colour")
        if seen_in_training and is_held_out(category, None if color == NATURAL else color):
            raise UserError(
                f"A {color} {category} is held out of training, and seed {seed} is a {split_of(seed)} seed; "
                "take a test seed, from 2000000 on."
            )
        return category, color, material
    while True:
        color = NATURAL if rng.random() < NATURAL_SHARE else colors[int(rng.integers(len(colors)))]
        if not (seen_in_training and is_held_out(category, None if color == NATURAL else color)):
            return category, color, material


def make_object(
    seed: int, category: str | None = None, color: str | None = None, material: str | None = None
) -> ProceduralObject:
    """The object of a seed; whatever is None is drawn from the seed too.

    category: a key of CATEGORIES. color: a key of COLORS, or "natural" for the category's own look. material: matte,
    glossy or metal. The shape depends on seed and category alone, so one seed can be had in several colours. Raises
    UserError for an unknown word, a seed outside every split, or a held-out pair asked of a train or val seed.
    """
    category, drawn, material = _draw(seed, category, color, material)
    natural = drawn == NATURAL
    recipe = CATEGORIES[category]
    paint_rng = np.random.Generator(np.random.PCG64([seed, 1]))
    palette = _palette(paint_rng, recipe.natural if natural else drawn, natural, material)
    parts = _normalised(recipe.build(np.random.Generator(np.random.PCG64([seed, 2])), palette))
    return ProceduralObject(
        seed, category, None if natural else drawn, material, palette.main, parts, pack(parts)
    )
