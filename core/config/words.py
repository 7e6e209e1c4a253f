"""Types and faults in a user's words."""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from core.config.base import ComponentSpec, Slot
from core.config.schedule import Schedule

LISTS = (list, tuple, set, frozenset, Sequence)
"""Types that are written as a list."""

UNIONS = (Union, types.UnionType)

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    Schedule: "a schedule",
    Any: "anything",
    type(None): "null",
}

_LIMITS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
    "too_short": ("min_length", "at least {} items"),
    "too_long": ("max_length", "at most {} items"),
    "string_too_short": ("min_length", "at least {} characters"),
    "string_too_long": ("max_length", "at most {} characters"),
    "string_pattern_mismatch": ("pattern", "a text of the form {}"),
    "finite_number": ("", "a finite number"),
}


def expected(tp: Any, slot: Slot | None = None) -> str:
    """A type in a user's words: ``a whole number``, ``one of a, b``, ``a list (each a geometry)``."""
    origin, args = get_origin(tp), get_args(tp)
    if origin is Annotated:
        return expected(args[0], slot_of(args[1:]) or slot)
    if origin in UNIONS:
        return " or ".join(expected(a, slot) for a in args)
    if origin is Literal:
        return _one_of(args)
    if origin in LISTS:
        return _list(origin, args, slot)
    if origin in (dict, Mapping):
        return f"a block of '{slot.kind if slot else 'name'}: {_bare(args[1], slot)}' lines"
    if isinstance(tp, type) and issubclass(tp, enum.Enum):
        return _one_of([m.value for m in tp])
    if isinstance(tp, type) and issubclass(tp, BaseModel):
        return "a block of options"
    if tp is ComponentSpec:
        return with_article(slot.kind if slot else "component")
    return _WORDS.get(tp, getattr(tp, "__name__", str(tp)))


def _list(origin: Any, args: tuple[Any, ...], slot: Slot | None) -> str:
    if origin is tuple and args[-1] is not Ellipsis:
        same = f" (each {expected(args[0])})" if len(set(args)) == 1 else f" ({', '.join(map(expected, args))})"
        return f"a list of {len(args)} values{same}"
    return f"a list (each {expected(args[0], slot)})"


def _bare(tp: Any, slot: Slot | None) -> str:
    return expected(tp, slot).removeprefix("a ").removeprefix("an ")


def _one_of(choices: Sequence[Any]) -> str:
    words = ", ".join(map(str, choices))
    return words if len(choices) == 1 else f"one of {words}"


def with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def pydantic_message(detail: ErrorDetails, shown: str = "") -> str:
    """A fault that pydantic found, in the form of the others; ``shown`` is the value as it was written."""
    context = detail.get("ctx", {})
    if detail["type"] in _LIMITS:
        name, text = _LIMITS[detail["type"]]
        limit = context.get(name, "")
        limit = f"{limit:g}" if isinstance(limit, float) else limit
        value = detail["input"]
        if detail["type"].endswith("too_short") and limit == 1:
            return f"expected {'a text' if isinstance(value, str) else 'a list'} that is not empty"
        found = f"{len(value)}" if detail["type"].startswith("too_") else shown or repr(value)
        return f"expected {text.format(limit)}, found {found}"
    if "error" in context:
        return str(context["error"])
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, found {shown or repr(detail['input'])}"


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, on one line, without its full stop."""
    flat = " ".join((text or "").split())
    return flat.partition(". ")[0].rstrip(".")


def join(path: str, *parts: str | int) -> str:
    """``guidance.0.weight``."""
    return ".".join([path, *map(str, parts)] if path else map(str, parts))


def slot_of(metadata: Sequence[Any]) -> Slot | None:
    """The marker of a slot in an annotation's extras."""
    return next((m for m in metadata if isinstance(m, Slot)), None)


def holds_component(tp: Any) -> bool:
    """Whether a value of this type is or contains a component (nested classes of options included)."""
    if tp is ComponentSpec:
        return True
    if isinstance(tp, type) and issubclass(tp, BaseModel):
        return any(slot_of(f.metadata) or holds_component(f.annotation) for f in tp.model_fields.values())
    args = get_args(tp)
    if get_origin(tp) is Annotated:
        return slot_of(args[1:]) is not None or holds_component(args[0])
    return get_origin(tp) is not Literal and any(holds_component(a) for a in args)
