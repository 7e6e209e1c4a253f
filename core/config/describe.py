"""What a class of options says about itself: for ``describe``, and as an example to copy."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from core.config.base import ComponentSpec
from core.config.dump import dump_yaml, to_plain
from core.config.words import LISTS, UNIONS, expected, slot_of

_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


@dataclass(frozen=True)
class Option:
    """One option of a component.

    Attributes:
        name: dotted where classes of options are nested, ``guidance[].prior`` inside a list.
        type: in words, with its range: ``a whole number, at least 1``.
        default: a plain value; None where ``required``.
        doc: the docstring under the field, on one line.
        choices: the allowed words, where they are few.
        slot: the kind of component that it takes, or None.
        required: whether it must be given.
    """

    name: str
    type: str
    default: Any
    doc: str
    choices: tuple[str, ...] = ()
    slot: str | None = None
    required: bool = False


def describe_options(config: type[BaseModel] | None) -> list[Option]:
    """The options of a ``Config`` class in order, nested ones after the option that holds them.

    Args:
        config: None (a component without options) has none.
    """
    return [] if config is None else list(_options(config, ""))


def _options(config: type[BaseModel], prefix: str) -> Iterator[Option]:
    for name, info in config.model_fields.items():
        path = prefix + (info.alias or name)
        yield _option(path, info)
        nested, many = _nested(info.annotation)
        if nested is not None:
            yield from _options(nested, f"{path}[]." if many else f"{path}.")


def _option(path: str, info: FieldInfo) -> Option:
    slot = slot_of(info.metadata) or _inner_slot(info.annotation)
    required = info.is_required()
    default = None if required else to_plain(info.get_default(call_default_factory=True, validated_data={}))
    words = ", ".join([expected(info.annotation, slot), *_range(info)])
    doc = " ".join((info.description or "").split())
    return Option(path, words, default, doc, _choices(info.annotation), slot.kind if slot else None, required)


def _range(info: FieldInfo) -> list[str]:
    found = []
    for item in info.metadata:
        parts = list(item) if isinstance(item, annotated_types.GroupedMetadata) else [item]
        for part in parts:
            found += [f"{word} {getattr(part, key):g}" for key, word in _BOUNDS.items() if hasattr(part, key)]
    return found


def _choices(tp: Any) -> tuple[str, ...]:
    if get_origin(tp) is Literal:
        return tuple(str(a) for a in get_args(tp))
    if isinstance(tp, type) and issubclass(tp, enum.Enum):
        return tuple(str(m.value) for m in tp)
    if get_origin(tp) in UNIONS or get_origin(tp) is Annotated:
        return tuple(c for a in get_args(tp) for c in _choices(a))
    return ("true", "false") if tp is bool else ()


def _inner_slot(tp: Any) -> Any:
    args = get_args(tp)
    if get_origin(tp) is Annotated:
        return slot_of(args[1:]) or _inner_slot(args[0])
    if get_origin(tp) is Literal:
        return None
    return next((s for s in map(_inner_slot, args) if s is not None), None)


def _nested(tp: Any) -> tuple[type[BaseModel] | None, bool]:
    """The class of options inside a type, and whether it stands in a list."""
    if isinstance(tp, type) and issubclass(tp, BaseModel):
        return tp, False
    if tp is ComponentSpec or get_origin(tp) in (None, Literal):
        return None, False
    for arg in get_args(tp):
        found, many = _nested(arg)
        if found is not None:
            return found, many or get_origin(tp) in LISTS
    return None, False


def example_yaml(kind: str, name: str, config: type[BaseModel] | None) -> str:
    """A piece of a job file that uses the component with every default written out and explained.

    What must be given stands there as a comment that ends in ``(required)``. A task's options stand at the top level
    of the file, a loss is a weight.
    """
    if kind == "loss":
        return f"losses:\n  {name}: 1.0\n"
    if config is None:
        return f"{kind}: {name}\n"
    if kind in ("task", "generator"):
        return f"task: {name}\n" + "".join(_lines(config, ""))
    return f"{kind}:\n  type: {name}\n" + "".join(_lines(config, "  "))


def _lines(config: type[BaseModel], indent: str) -> Iterator[str]:
    for name, info in config.model_fields.items():
        option = _option(info.alias or name, info)
        note = "; ".join(part for part in (option.doc.rstrip("."), option.type) if part)
        nested, many = _nested(info.annotation)
        if option.required:
            yield f"{indent}# {option.name}:  # {note} (required)\n"
        elif nested is not None and not many and isinstance(option.default, dict):
            yield f"{indent}{option.name}:  # {option.doc}\n"
            yield from _lines(nested, indent + "  ")
        else:
            text = dump_yaml({option.name: option.default}).rstrip("\n").split("\n")
            yield (f"{indent}{text[0]}  # {note}\n" if len(text) == 1 else f"{indent}# {note}\n{indent}{text[0]}\n")
            yield from (f"{indent}{line}\n" for line in text[1:])
