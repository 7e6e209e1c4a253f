"""The object categories, in a fixed order: the order is part of the dataset's identity."""

from __future__ import annotations

from plugins.procedural.categories.animals import CAT, CORGI, RABBIT
from plugins.procedural.categories.base import COLORS, Category, Palette
from plugins.procedural.categories.buildings import CASTLE, HOUSE, LIGHTHOUSE, WINDMILL
from plugins.procedural.categories.craft import AIRPLANE, BOAT, HELICOPTER, ROCKET
from plugins.procedural.categories.furniture import BED, CHAIR, LAMP, SOFA, TABLE
from plugins.procedural.categories.household import GUITAR, MUG, TEAPOT, UMBRELLA
from plugins.procedural.categories.nature import CACTUS, MUSHROOM, ROBOT, SNOWMAN, TREE
from plugins.procedural.categories.pond import DUCK, FISH
from plugins.procedural.categories.road import BUS, RACE_CAR

_ORDER = (
    *(CORGI, CAT, RABBIT, DUCK, FISH),
    *(CASTLE, HOUSE, LIGHTHOUSE, WINDMILL),
    *(RACE_CAR, BUS, AIRPLANE, HELICOPTER, ROCKET, BOAT),
    *(CHAIR, TABLE, SOFA, LAMP, BED),
    *(MUG, TEAPOT, GUITAR, UMBRELLA),
    *(TREE, CACTUS, MUSHROOM, SNOWMAN, ROBOT),
)

CATEGORIES: dict[str, Category] = {category.name: category for category in _ORDER}

__all__ = ["CATEGORIES", "COLORS", "Category", "Palette"]
