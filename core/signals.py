"""The closed vocabulary in which components say what they need and what they give.

A need may list alternatives: ``"rgb|latent"`` is met by either. A gift is always a single signal.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import UserError, did_you_mean

SIGNALS: dict[str, str] = {
    "rgb": "rendered colour, [B, H, W, 3] sRGB in [0, 1]",
    "latent": "rendered latents, [B, H, W, C] in a prior's own space",
    "opacity": "rendered coverage, [B, H, W, 1] in [0, 1]",
    "depth": "distance along the viewing axis, [B, H, W, 1], 0 where nothing was hit",
    "normal": "rendered normals in world axes, [B, H, W, 3], length at most 1",
    "weights": "how a ray's samples share its opacity (volume rendering)",
    "interlevel": "per ray, how much of what its samples found their proposal did not allow for, [N]",
    "camera": "pose and field of view of every image",
    "multiview": "a batch is several views of one object whose relative poses are fixed",
    "text": "the job's sentence",
    "view-text": "one sentence per view, with the view's direction in it",
    "image": "a reference picture, [H, W, 3] or [H, W, 4] in [0, 1]",
    "target": "pictures to be matched, one per camera, [B, H, W, 3] in [0, 1]",
    "target-mask": "coverage of the pictures to be matched, [B, H, W, 1] in [0, 1]",
    "target-nearness": "larger where a picture's surface is nearer, on any scale, [B, H, W, 1]",
    "target-normal": "normals of the pictures to be matched in world axes, [B, H, W, 3], unit",
    "density": "a field of volume density, per unit length",
    "sdf": "a signed distance field, negative inside",
    "sdf-gradient": "slopes of a signed distance, [M, 3]: length 1 where it is a distance",
    "variation": "how much neighbouring values of a grid differ, a scalar",
    "sdf-edges": "signed distances at both ends of the grid edges that a surface crosses, [E, 2]",
    "face-normals": "unit normals of the two faces at each inner edge of a surface, [E, 2, 3]",
    "umbrella": "from each vertex of a surface to the mean of its neighbours, [V, 3]",
    "sketch": "at points, a field's occupancy, that of a sketch (0 or 1), and how much their difference counts, [M, 3]",
    "latent-score": "what a 3D prior says of a scene's latents, a scalar whose gradient is the score",
    "mesh": "a triangle mesh",
    "gaussians": "a set of anisotropic Gaussians",
    "features": "feature vectors at points, which a material turns into colour",
    "uv": "texture coordinates on a mesh",
    "pbr": "base colour, roughness and metallic",
    "light": "a light position per image",
    "video": "a picture sequence",
    "embedding": "vectors in which pictures and sentences can be compared",
}

FIELD_SIGNALS = ("sdf-gradient", "variation", "sdf-edges", "face-normals", "umbrella", "sketch", "latent-score")
"""What a loss gets from the geometry itself (``Geometry.extra``), whatever renders it."""


def alternatives(need: str) -> tuple[str, ...]:
    """``"rgb|latent"`` as ``("rgb", "latent")``."""
    return tuple(part.strip() for part in need.split("|"))


def check_signals(needs: Iterable[str], gives: Iterable[str]) -> None:
    """Refuse words that are not in the vocabulary.

    Raises:
        UserError: naming the first unknown word and the nearest known one.
    """
    for word in [part for need in needs for part in alternatives(need)] + list(gives):
        if word not in SIGNALS:
            raise UserError(f"'{word}' is not a signal.{did_you_mean(word, SIGNALS)}")


def missing(needs: Iterable[str], given: Iterable[str]) -> list[str]:
    """The needs that nothing in ``given`` meets, in their written form."""
    have = set(given)
    return [need for need in needs if not have.intersection(alternatives(need))]
