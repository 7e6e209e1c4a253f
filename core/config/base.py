"""The base of every configuration class, and the marker of a field that holds a component.

A component keeps its options in a nested class::

    class HashGrid(Geometry):
        class Config(core.Config):
            levels: int = 12
            '''Number of resolutions.'''

Docstrings under fields are kept: ``describe``, ``--print-config`` and error messages are generated from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Strict options: unknown keys are errors, values are not coerced across types (no ``"3"`` for 3)."""

    model_config = ConfigDict(
        extra="forbid", strict=False, frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True
    )


@dataclass(frozen=True)
class Slot:
    """Marks a field that holds a component of ``kind``: ``geometry: Annotated[ComponentSpec, Slot("geometry")]``."""

    kind: str


@dataclass(frozen=True)
class ComponentSpec:
    """A component that was looked up and whose options were validated, not built yet.

    Attributes:
        kind, name: its place in the registry (``name`` is qualified when two plugins offer it).
        options: an instance of the component's ``Config`` class, or None for a component without options.
    """

    kind: str
    name: str
    options: Any
