"""The iso level of a density field, chosen so that the mesh looks like what volume rendering shows.

A density has no surface of its own. What a viewer of the volume sees along a ray is its opacity
``1 - exp(-sum sigma dt)`` and, where it is opaque, the depth at which half of the light is gone (Max 1995,
"Optical Models for Direct Volume Rendering"). Both cost one pass over the grid's columns, from the six axis
directions. A level gives a mask and a first crossing in the same columns; the chosen one has the least volume
between the two pictures. Otsu's threshold on the cell's alpha was set aside: it depends on how much empty space
and how much hidden interior the cube holds, neither of which can be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_BINS = 512
_LOG_LOW, _LOG_HIGH = -12.0, 20.0  # log2 of the densities told apart
_CANDIDATES = 24
_CAP = 6.0  # cells: a miss counts like a surface this far off


@dataclass(frozen=True)
class Level:
    """A chosen iso level.

    Attributes:
        value: density per unit length, > 0.
        opacity: the highest opacity that any axis view shows, in [0, 1]; below 0.5 the field is fog.
        error: mean distance in cells between the level's surface and the rendered one.
    """

    value: float
    opacity: float
    error: float


@njit(cache=True)
def _absorbed(columns: Any, cell: float, hist: Any) -> float:
    """Add the light absorbed at each density to ``hist`` [bins]; the largest opacity of a column."""
    highest = 0.0
    scale = hist.shape[0] / (_LOG_HIGH - _LOG_LOW)
    for a in range(columns.shape[0]):
        for b in range(columns.shape[1]):
            light = 1.0
            for k in range(columns.shape[2]):
                sigma = columns[a, b, k]
                if sigma <= 0.0:
                    continue
                left = light * math.exp(-sigma * cell)
                slot = int((math.log2(sigma) - _LOG_LOW) * scale)
                hist[min(max(slot, 0), hist.shape[0] - 1)] += light - left
                light = left
            highest = max(highest, 1.0 - light)
    return highest


@njit(cache=True)
def _column_cost(column: Any, cell: float, levels: Any, cap: float, cost: Any) -> float:
    """Add the column's cost in cells at each of the rising ``levels`` [L]; its opacity."""
    depth, total = 0.0, 0.0
    unknown = -1.0  # a median lies at -0.5 or later
    median = unknown
    for k in range(column.shape[0]):
        total = depth + column[k] * cell
        if median == unknown and total >= math.log(2.0):
            median = k - 0.5 + (math.log(2.0) - depth) / (total - depth)
        depth = total
    opacity = 1.0 - math.exp(-depth)
    found, last = 0, 0.0
    for k in range(column.shape[0]):
        value = column[k]
        while found < levels.shape[0] and value > levels[found]:
            crossing = k - (value - levels[found]) / (value - last)
            wrong = (1.0 - opacity) * cap
            if median != unknown:
                wrong += opacity * min(abs(crossing - median), cap)
            cost[found] += wrong
            found += 1
        last = value
    for rest in range(found, levels.shape[0]):
        cost[rest] += opacity * cap
    return opacity


@njit(cache=True)
def _view_cost(columns: Any, cell: float, levels: Any, cap: float, cost: Any) -> float:
    """Add the cost of all columns, looked at from both ends; the sum of their opacities."""
    seen = 0.0
    for a in range(columns.shape[0]):
        for b in range(columns.shape[1]):
            column = columns[a, b]
            if column.max() > 0.0:
                seen += _column_cost(column, cell, levels, cap, cost)
                seen += _column_cost(column[::-1], cell, levels, cap, cost)
    return seen


def iso_level(density: F32, cell: float) -> Level | None:
    """The level whose surface is nearest to the volume as rendered.

    The candidates lie between 1/64 and 1/2 of the density at which the median photon is absorbed: higher levels
    would follow the noise of the plateau inside a wall.

    Args:
        density: [X, Y, Z] >= 0 per unit length, on a grid of ``cell`` units.

    Returns:
        None where the density is zero everywhere.
    """
    views = [np.ascontiguousarray(np.moveaxis(density, axis, -1)) for axis in range(3)]
    hist = np.zeros(_BINS)
    opacity = max(_absorbed(view, cell, hist) for view in views)
    if hist.sum() <= 0.0:
        return None
    middle = int(np.searchsorted(np.cumsum(hist), 0.5 * hist.sum()))
    wall = 2.0 ** (_LOG_LOW + (middle + 0.5) * (_LOG_HIGH - _LOG_LOW) / _BINS)
    wall = min(wall, float(density.max()))
    levels = wall * np.geomspace(1 / 64, 1 / 2, _CANDIDATES)
    cost = np.zeros(_CANDIDATES)
    seen = sum(_view_cost(view, cell, levels, _CAP, cost) for view in views)
    # A step in the density makes a whole range of levels equal: its middle is the safest.
    good = levels[cost <= cost.min() * 1.02 + 1e-9]
    return Level(float(np.exp(np.log(good).mean())), float(opacity), float(cost.min() / max(seen, 1e-12)))
