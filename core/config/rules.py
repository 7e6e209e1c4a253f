"""Small decisions about types and values that the checker asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, PlainValidator, WrapValidator
from pydantic_core import ErrorDetails

from core.config.base import ComponentSpec
from core.config.nodes import Node, read_scalar
from core.config.schedule import Schedule
from core.config.words import LISTS

FAILED: Any = object()
"""What stands for a value that was reported as wrong."""


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else FAILED


def _number(value: Any) -> Any:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    return float(value) if usable else FAILED


def _boolean(value: Any) -> Any:
    return value if isinstance(value, bool) else FAILED


NUMBERS: dict[Any, Callable[[Any], Any]] = {int: _whole, float: _number, bool: _boolean}
"""Readers of the types whose values are not text; each answers FAILED to a value of another type."""


def hint(tp: Any, node: Node) -> str:
    """Why what looks right is not."""
    if not isinstance(node.value, str):
        return ""
    if tp is bool and node.value.lower() in ("yes", "on", "no", "off"):
        return f"; write {'true' if node.value.lower() in ('yes', 'on') else 'false'}"
    return " in quotes, which make it a text" if NUMBERS[tp](read_scalar(node.value)) is not FAILED else ""


def is_path(tp: Any) -> bool:
    """Whether the type is ``Path`` or one of its kind."""
    return isinstance(tp, type) and issubclass(tp, Path)


def same_shape(tp: Any, node: Node) -> bool:
    """Whether a value written like ``node`` was probably meant as ``tp``."""
    while get_origin(tp) is Annotated:
        tp = get_args(tp)[0]
    origin = get_origin(tp) or tp
    if tp is ComponentSpec:
        return isinstance(node.value, (dict, str))
    if isinstance(node.value, dict):
        return origin is dict or (isinstance(tp, type) and issubclass(tp, (BaseModel, Schedule)))
    return isinstance(node.value, list) and origin in LISTS


def reads_itself(cls: type[BaseModel], name: str) -> bool:
    """Whether the field accepts other forms than its type's, through a validator that runs before."""
    early = (BeforeValidator, PlainValidator, WrapValidator)
    if any(isinstance(m, early) for m in cls.model_fields[name].metadata):
        return True
    decorators = cls.__pydantic_decorators__.field_validators.values()
    return any(d.info.mode != "after" and ({name, "*"} & set(d.info.fields)) for d in decorators)


def about_type(detail: ErrorDetails) -> bool:
    """Whether pydantic complains about the type rather than the value."""
    return detail["type"].endswith(("_type", "literal_error", "_of"))


def descend(node: Node, loc: Sequence[str | int]) -> tuple[tuple[str | int, ...], Node | None]:
    """How far pydantic's ``loc`` can be followed in what was written, and what stands there (None for no step)."""
    at: list[str | int] = []
    for part in loc:
        if isinstance(node.value, dict) and str(part) in node.value:
            node = node.value[str(part)]
        elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            continue  # the name of a union's member
        at.append(part)
    return tuple(at), node if at else None
