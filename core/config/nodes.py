"""YAML as a tree that remembers where each value was written and how.

Plain scalars follow the core schema of YAML 1.2: ``yes``, ``no``, ``on``, ``off`` and dates are text, ``1e-3`` is a
number. A field typed ``str`` does not ask for that reading: it takes the text as written (see :mod:`.values`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import yaml

_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULL = {"", "~", "null", "Null", "NULL"}
_INT = re.compile(r"[-+]?[0-9]+(_[0-9]{3})*")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}


class _Loader(yaml.SafeLoader):
    """Leaves plain scalars alone: PyYAML would read them by YAML 1.1, where ``no`` is false and ``1e3`` is text."""

    yaml_implicit_resolvers = {}


@dataclass(frozen=True)
class Node:
    """One value of a configuration.

    Attributes:
        value: a scalar, or ``list[Node]``, or ``dict[str, Node]``.
        where: where it was written: ``file:line``, or the override itself.
        raw: its text as written; None where it has none (a block of keys, a null of Python).
        key: where its key was written; ``where`` for what has no key.
        under: the scalar that this mapping was merged over (``geometry: hash-grid``, then ``{levels: 3}``).
        broken: why an override's text is no YAML; only text fields can take it.
    """

    value: Any
    where: str
    raw: str | None = None
    key: str = ""
    under: Node | None = None
    broken: str = ""

    @property
    def place(self) -> str:
        """Where its key stands, or itself."""
        return self.key or self.where

    @property
    def is_null(self) -> bool:
        return self.value is None and not self.broken

    def plain(self) -> Any:
        """Scalars, lists and dicts; keys that read as numbers become numbers (``points: {0: 1.0}``)."""
        if isinstance(self.value, dict):
            return {read_key(k): v.plain() for k, v in self.value.items()}
        if isinstance(self.value, list):
            return [v.plain() for v in self.value]
        return self.value

    def shown(self) -> str:
        """A few words for a message: ``'many'``, ``3``, ``a list``."""
        if isinstance(self.value, dict):
            return "a block of keys"
        if isinstance(self.value, list):
            return "a list"
        if self.value is None:
            return "nothing" if not self.raw else "null"
        if isinstance(self.value, str):
            return f"'{self.value}'"
        return self.raw if self.raw is not None else str(self.value)


def read_scalar(text: str) -> Any:
    """What a plain scalar means: None, bool, int, float or the text itself."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return float("nan") if text in (".nan", ".NaN", ".NAN") else text


def read_key(text: str) -> Any:
    """A key of free-form data: a whole number where it reads as one."""
    return int(text) if re.fullmatch(r"-?(0|[1-9][0-9]*)", text) else text


def parse(text: str, file: str, problems: list[str]) -> Node | None:
    """The tree of a YAML file; None (and a problem) where it is no YAML.

    Args:
        text: the file's content.  file: its name, for places.  problems: receives one sentence per fault.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problems.append(f"{file}:{line}: not valid YAML: {syntax_message(error)}")
        return None
    except yaml.YAMLError as error:
        problems.append(f"{file}:1: not valid YAML: {' '.join(str(error).split())}")
        return None
    if root is None:
        return Node({}, f"{file}:1")
    return _Reader(text, file, problems).read(root)


def syntax_message(error: yaml.MarkedYAMLError) -> str:
    """One sentence of the parser's two or three, with the usual cure."""
    problem = " ".join((error.problem or "unreadable").split())
    message = problem if not error.context else f"{problem} ({' '.join(error.context.split())})"
    if "mapping values are not allowed" in problem:
        return message + "; a text that holds ': ' needs quotes"
    if "cannot start any token" in problem and r"'\t'" in problem:
        return message + "; indent with spaces"
    return message


class _Reader:
    """Turns PyYAML's nodes into ours, and reports duplicate keys, foreign tags and endless aliases."""

    def __init__(self, text: str, file: str, problems: list[str]) -> None:
        self.text, self.file, self.problems = text, file, problems
        self.open: list[int] = []  # ids of the nodes being read: an alias to one of them never ends

    def read(self, node: yaml.Node) -> Node:
        where = self.place(node)
        if id(node) in self.open:
            self.problems.append(f"{where}: an alias refers to what it is part of")
            return Node(None, where)
        if node.tag not in _TAGS:
            self.problems.append(f"{where}: the tag '{node.tag}' means nothing here")
        self.open.append(id(node))
        try:
            return self._read(node, where)
        finally:
            self.open.pop()

    def _read(self, node: yaml.Node, where: str) -> Node:
        if isinstance(node, yaml.ScalarNode):
            return Node(read_scalar(node.value) if node.style is None else node.value, where, node.value)
        flow = isinstance(node, yaml.CollectionNode) and node.flow_style
        raw = self.text[node.start_mark.index : node.end_mark.index] if flow else None
        if isinstance(node, yaml.MappingNode):
            return Node(dict(self._items(node)), where, raw)
        return Node([self.read(child) for child in node.value], where, raw)

    def _items(self, node: yaml.MappingNode) -> Iterator[tuple[str, Node]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if _is_merge(key):
                yield from self._merged(value)
        for key, value in node.value:
            if _is_merge(key):
                continue
            place, line = self.place(key), key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(f"{place}: a key must be a single word, not a list or a block")
                continue
            if key.value in seen:
                self.problems.append(f"{place}: '{key.value}' is written twice (first on line {seen[key.value]})")
            seen.setdefault(key.value, line)
            yield key.value, replace(self.read(value), key=place)

    def _merged(self, value: yaml.Node) -> Iterator[tuple[str, Node]]:
        """``<<: *alias``: the keys of the alias, which the mapping's own keys replace."""
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for source in reversed(sources):
            if isinstance(source, yaml.MappingNode):
                yield from self._items(source)
            else:
                self.problems.append(f"{self.place(value)}: '<<' takes a mapping or a list of mappings")

    def place(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.style is None and key.value == "<<"


def from_python(value: Any, where: str) -> Node:
    """A tree of Python values (a dict handed to ``load_job``, the options of a command)."""
    if isinstance(value, Mapping):
        return Node({str(k): from_python(v, where) for k, v in value.items()}, where)
    if isinstance(value, (list, tuple)):
        return Node([from_python(v, where) for v in value], where)
    if isinstance(value, PurePath):
        value = str(value)
    if value is None:
        return Node(None, where)
    raw = str(value).lower() if isinstance(value, bool) else str(value)
    return Node(value, where, raw)
