"""What a finished object is, and the contracts of components that write, convert and measure it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.component import Component
from core.streams import Context
from core.types import Render

if TYPE_CHECKING:
    from core.contracts import Background, Geometry, Material, Renderer


class Exporter(Component, ABC):
    """Writes assets."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        """Write into ``folder``; yield each file written."""


class Converter(Component, ABC):
    """Turns one representation into another; what it reads and writes are its ``needs`` and ``gives``."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    def convert(self, scene: Scene) -> Any:
        """A :class:`~core.types.Mesh`, :class:`~core.types.Splats`, or points, by what it gives.

        Raises:
            UserError: the scene is empty, or has nothing that this converter could read.
        """


class Metric(Component, ABC):
    """Measures renders of an object against what was asked."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    def measure(self, renders: Render, prompt: str) -> dict[str, float]:
        """Numbers by name."""


@dataclass
class Scene:
    """A finished object, as exporters see it.

    Attributes:
        geometry, material, background, renderer: the built components.
        name: a file-name-safe title.  prompt: the sentence it was made from.
    """

    geometry: Geometry
    material: Material
    background: Background
    renderer: Renderer
    name: str = "asset"
    prompt: str = ""
    cache: dict[str, Any] = field(default_factory=dict)
