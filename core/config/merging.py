"""Laying one configuration over another, and single values over a configuration.

* Mappings merge key by key; lists and scalars replace; a mapping with numbers for keys (``guidance: {0: {weight: 2}}``)
  changes those items of a list.
* A schedule in one form replaces a schedule in the other.
* Where the ``type`` changes, the options of the old type go (they would be unknown to the new one); the ``optimizer``
  is no component and keeps its numbers.
* ``geometry: hash-grid`` and ``geometry: {type: hash-grid}`` are the same thing, also when merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.config.nodes import Node, parse
from core.config.schedule import KEYS as SCHEDULE_KEYS

_KEEPS_OPTIONS = "optimizer"


def merge(base: Node | None, over: Node, name: str = "") -> Node:
    """``over`` on top of ``base``; neither is changed.

    Args:
        name: the key that both stand under.
    """
    if base is None:
        return over
    if not isinstance(over.value, dict):
        return _shorthand(base, over, name)
    if isinstance(base.value, list) and _are_indices(over.value, len(base.value)):
        items = list(base.value)
        for key, node in over.value.items():
            items[int(key)] = merge(items[int(key)], node, name)
        return Node(items, base.where, None, base.key)
    if not isinstance(base.value, dict):
        named = isinstance(base.value, str) and "type" not in over.value
        return replace(over, under=base) if named else over
    if "type" in over.value and _type(base) not in (None, _type(over)) and name != _KEEPS_OPTIONS:
        return over
    if _other_form(base, over):
        return over
    joined = dict(base.value)
    for key, node in over.value.items():
        joined[key] = merge(joined.get(key), node, key)
    under = base.under if "type" not in over.value else None
    return Node(joined, base.where, None, base.key, under)


def _are_indices(value: dict[str, Node], length: int) -> bool:
    return bool(value) and all(key.isdigit() and int(key) < length for key in value)


def _other_form(base: Node, over: Node) -> bool:
    """Whether both are schedules, one with ``points`` and one with ``from`` and ``to``: together they are neither."""
    keys = {*base.value, *over.value}
    return bool(over.value) and keys <= set(SCHEDULE_KEYS) and ("points" in base.value) != ("points" in over.value)


def _type(node: Node) -> str | None:
    found = node.value.get("type", node.under)
    return None if found is None else found.raw


def _shorthand(base: Node, over: Node, name: str) -> Node:
    """A name laid over a mapping with a ``type``: the same component keeps its options."""
    if not isinstance(base.value, dict) or not isinstance(over.value, str):
        return over
    if over.raw == _type(base) or name == _KEEPS_OPTIONS:
        return Node({**base.value, "type": over}, over.where, None, over.key)
    return over


@dataclass(frozen=True)
class Override:
    """``guidance.0.weight=2``: a dotted path (list items by number) and its value."""

    path: tuple[str, ...]
    node: Node

    @property
    def where(self) -> str:
        return self.node.where


def parse_override(text: str, problems: list[str]) -> Override | None:
    """An override from the command line; None (and a problem) where it is not one."""
    where = f"{text} on the command line"
    path, equals, value = text.partition("=")
    parts = tuple(path.strip().split("."))
    if not equals or not all(parts):
        problems.append(f"{where}: not of the form key=value (prompt=a red chair, guidance.0.weight=2)")
        return None
    return Override(parts, parse_value(value, where))


def parse_value(text: str, where: str) -> Node:
    """The value of an override: YAML where it is YAML, and always its own text for a text field."""
    faults: list[str] = []
    node = parse(text, "", faults)
    if node is None or faults:
        return Node(text, where, text, where, broken=faults[0].partition(": ")[2] if faults else "unreadable")
    if isinstance(node.value, dict) and not node.value and "{" not in text:
        return Node(None, where, text, where)
    return replace(_placed(node, where), raw=text, key=where)


def _placed(node: Node, where: str) -> Node:
    """The same tree with ``where`` everywhere: an override has no lines."""
    value: Any = node.value
    if isinstance(node.value, dict):
        value = {k: _placed(v, where) for k, v in node.value.items()}
    elif isinstance(node.value, list):
        value = [_placed(v, where) for v in node.value]
    return replace(node, value=value, where=where, key=where)


def in_order(overrides: Sequence[Override]) -> list[Override]:
    """Changes of a ``type`` first: they drop options, also those that stand before them on the command line."""
    return sorted(overrides, key=lambda o: o.path[-1] != "type")


def apply(root: Node, override: Override, problems: list[str]) -> Node:
    """``root`` with one value laid over it."""
    return _apply(root, override.path, 0, override, problems)


def _apply(node: Node, path: tuple[str, ...], depth: int, override: Override, problems: list[str]) -> Node:
    part, here = path[depth], ".".join(path[:depth])
    if isinstance(node.value, list):
        items = list(node.value)
        if not part.isdecimal() or int(part) >= len(items):
            have = f"{len(items)} item{'s' * (len(items) != 1)}, the first is {here}.0" if items else "no items"
            problems.append(f"{override.where}: {here} has {have}; there is no '{part}' in it")
            return node
        items[int(part)] = _lay(items[int(part)], path, depth, override, problems)
        return replace(node, value=items, raw=None)
    if isinstance(node.value, dict) and part in node.value and depth + 1 < len(path):
        child = _lay(node.value[part], path, depth, override, problems)
        return replace(node, value={**node.value, part: child}, raw=None)
    return merge(node, _nested(path[depth:], override.node), path[depth - 1] if depth else "")


def _lay(child: Node, path: tuple[str, ...], depth: int, override: Override, problems: list[str]) -> Node:
    if depth + 1 == len(path):
        return merge(child, override.node, path[depth])
    return _apply(child, path, depth + 1, override, problems)


def _nested(path: tuple[str, ...], node: Node) -> Node:
    for part in reversed(path):
        node = Node({part: node}, node.where, None, node.where)
    return node


def holds(node: Node, path: Sequence[str]) -> bool:
    """Whether a value is written at ``path``."""
    for part in path:
        if not isinstance(node.value, dict) or part not in node.value:
            return False
        node = node.value[part]
    return True
