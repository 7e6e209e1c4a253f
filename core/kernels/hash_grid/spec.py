"""The shape of a hash grid: levels, features, table size and resolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from core.errors import UserError


@dataclass(frozen=True)
class HashGridSpec:
    """A multiresolution hash grid (Müller et al. 2022, table 1 and eq. 2-3).

    Attributes:
        levels: how many grids, L >= 1.
        features: numbers per grid vertex, F >= 1.
        log2_table: log2 of T, the rows of each level's table; 1 to 24.
        base_resolution: cells per side of the coarsest level.
        finest: cells per side of the finest level.

    Raises:
        UserError: a value out of its range.
    """

    levels: int = 12
    features: int = 2
    log2_table: int = 15
    base_resolution: int = 16
    finest: int = 512

    def __post_init__(self) -> None:
        for name, low, high in (("levels", 1, 32), ("features", 1, 16), ("log2_table", 1, 24)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"hash grid: {name} is {value}; it must lie between {low} and {high}.")
        if not 1 <= self.base_resolution <= self.finest <= 1 << 20:
            raise UserError(
                f"hash grid: base_resolution {self.base_resolution} and finest {self.finest} must satisfy "
                "1 <= base_resolution <= finest <= 1048576."
            )

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """L cells per side, a geometric progression from the coarsest to the finest (eq. 2-3)."""
        if self.levels == 1:
            return (self.base_resolution,)
        growth = math.log(self.finest / self.base_resolution) / (self.levels - 1)
        # The epsilon keeps the last level at `finest` where exp(log(x)) falls a hair below it.
        return tuple(int(self.base_resolution * math.exp(growth * i) + 1e-6) for i in range(self.levels))

    @property
    def table_shape(self) -> tuple[int, int, int]:
        """(L, T, F). Levels that need fewer rows than T leave the rest of their rows untouched."""
        return (self.levels, 1 << self.log2_table, self.features)

    @property
    def width(self) -> int:
        """L * F: the length of an encoding."""
        return self.levels * self.features

    def table(self, generator: torch.Generator | None = None, scale: float = 1e-4) -> Tensor:
        """A fresh table [L, T, F] float32 on the CPU, uniform in [-scale, scale] (section 4 of the paper)."""
        return (torch.rand(self.table_shape, generator=generator) * 2 - 1) * scale


def is_dense(resolution: int, rows: int) -> bool:
    """Whether all (resolution + 1)^3 vertices of a level have a row of their own (else they are hashed)."""
    return (resolution + 1) ** 3 <= rows
