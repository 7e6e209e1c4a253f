"""Data ``procedural-shapes``: the solids of procedural objects, as exact signed distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Context, DataSource, Step
from core.errors import UserError
from core.types import Cameras, Mesh
from plugins.procedural.captions import captions
from plugins.procedural.categories import CATEGORIES
from plugins.procedural.data import VERSION
from plugins.procedural.objects import make_object
from plugins.procedural.splits import seeds_of


@dataclass(frozen=True)
class Shape:
    """One solid.

    Attributes:
        seed: the object's.  category: its class.  caption: a sentence for it.
        distance: [N] signed distances at points [N, 3], world units, negative inside.
        mesh: its surface on a grid of so many points a side, with colours.
        surface: so many points [N, 3] spread over its surface.
    """

    seed: int
    category: str
    caption: str
    distance: Callable[[NDArray[Any]], NDArray[np.float64]] = field(compare=False)
    mesh: Callable[[int], Mesh] = field(compare=False)
    surface: Callable[[int], torch.Tensor] = field(compare=False)


class ProceduralShapes(DataSource):
    """A batch holds ``shapes``, a list, and ``cameras`` that look at them from the front."""

    class Config(BaseConfig):
        categories: list[str] = ["mug"]
        """Kinds of objects, in turn."""
        count: int = Field(512, ge=1)
        """How many objects the pool holds."""
        split: str = "train"
        """train, val or test: objects of their own."""
        batch: int = Field(4, ge=1)
        """Objects in a batch."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        for name in options.categories:
            if name not in CATEGORIES:
                raise UserError(
                    f"data.categories: '{name}' is no kind of procedural object; known: {', '.join(CATEGORIES)}"
                )
        if not options.categories:
            raise UserError("data.categories is empty: name at least one kind of procedural object")

    @property
    def identity(self) -> str:
        """What a cache of things made from these shapes is named by, beside the place of each in the pool."""
        return f"procedural-{VERSION}"

    def __len__(self) -> int:
        return int(self.options.count)

    @property
    def categories(self) -> list[str]:
        """The classes."""
        return list(self.options.categories)

    def category(self, index: int) -> int:
        """Which class the ``index``-th shape is of."""
        return index % len(self.options.categories)

    def shape(self, index: int, split: str | None = None) -> Shape:
        """The ``index``-th shape of the pool, or of another ``split``."""
        name = self.options.categories[self.category(index)]
        made = make_object(seeds_of(split or self.options.split).start + index, name)

        def mesh(resolution: int) -> Mesh:
            vertices, faces, colors = made.mesh(resolution)
            return Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces), torch.from_numpy(colors))

        def surface(count: int) -> torch.Tensor:
            return torch.from_numpy(made.surface(count)[0]).float()

        caption = captions(CATEGORIES[name].nouns, None, "matte")[0]
        return Shape(made.seed, name, caption, made.sdf, mesh, surface)

    def batch(self, step: Step) -> dict[str, Any]:
        chosen = torch.randint(len(self), (self.options.batch,), generator=step.generator("shapes")).tolist()
        cameras = Cameras.turntable(torch.zeros(len(chosen)), 0.3, 64)
        return {"shapes": [self.shape(k) for k in chosen], "index": torch.tensor(chosen), "cameras": cameras}
