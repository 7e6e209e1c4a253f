"""Train, validation and test objects: disjoint ranges of seeds, and colour combinations that training never shows."""

from __future__ import annotations

from core.errors import UserError, did_you_mean
from plugins.procedural.categories import CATEGORIES

SEED_RANGES: dict[str, range] = {
    "train": range(1_000_000),
    "val": range(1_000_000, 2_000_000),
    "test": range(2_000_000, 3_000_000),
}
# "heldout" draws test seeds wearing the held-out pairs only.
SPLITS = (*SEED_RANGES, "heldout")

# Absent from train and val; each category and each colour still appears there in other company.
HELD_OUT_PAIRS: tuple[tuple[str, str], ...] = (
    ("table", "red"),
    ("teapot", "orange"),
    ("cat", "yellow"),
    ("race car", "green"),
    ("chair", "cyan"),
    ("house", "blue"),
    ("mug", "purple"),
    ("corgi", "cyan"),
    ("duck", "brown"),
    ("sofa", "black"),
    ("bus", "gray"),
    ("castle", "purple"),
    ("airplane", "brown"),
    ("rocket", "black"),
    ("robot", "purple"),
    ("boat", "gray"),
    ("lighthouse", "pink"),
    ("cactus", "red"),
    ("mushroom", "blue"),
    ("lamp", "green"),
    ("tree", "white"),
)
_HELD_OUT = frozenset(HELD_OUT_PAIRS)


def is_held_out(category: str, color: str | None) -> bool:
    """Whether the pair is kept from train and val; color None (the natural look) counts as the natural colour."""
    return (category, color if color is not None else CATEGORIES[category].natural) in _HELD_OUT


def split_of(seed: int) -> str:
    """The split that owns an object seed. Raises UserError outside every range."""
    for name, seeds in SEED_RANGES.items():
        if seed in seeds:
            return name
    raise UserError(
        f"Object seed {seed} belongs to no split: seeds run from 0 to {SEED_RANGES['test'].stop - 1}."
    )


def seeds_of(split: str) -> range:
    """The object seeds of a split ("heldout" shares test's). Raises UserError for an unknown split."""
    if split not in SPLITS:
        raise UserError(f"Unknown split '{split}'.{did_you_mean(split, SPLITS)}")
    return SEED_RANGES["test" if split == "heldout" else split]
