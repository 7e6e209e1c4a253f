"""``vram=8gb``: a job's settings for a GPU of so much memory, over its file and under the user's own changes.

An overlay names options by the kind of component that has them. It reaches every component of that kind in the job, in
its stages too, and sets those options alone that the component has; a value typed on the command line stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from core.config.job import JobConfig
from core.config.merging import Override, apply
from core.config.nodes import Node, from_python
from core.errors import UserError

KEY = "vram"
Path_ = tuple[str, ...]
_FOLDER = Path(__file__).parent / "vram"
_TYPED = "on the command line"
_PARTS = {"renderer": "renderer", "data": "data", "cameras": "data", "prior": "prior"}
"""Keys that hold a component with much memory, and its kind."""


@cache
def _overlay(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def names() -> list[str]:
    """The sizes that there are settings for."""
    return sorted((path.stem for path in _FOLDER.glob("*.yaml")), key=lambda name: int(name.removesuffix("gb")))


def sized(tree: Node, asked: Sequence[Node], registry: Callable[[], Any], problems: list[str]) -> Node:
    """A job's tree with the settings for the GPU that the command line asks for (the last counts), else its file."""
    size = asked[-1] if asked else tree.value.get(KEY)
    tree = replace(tree, value={key: node for key, node in tree.value.items() if key != KEY})
    return tree if size is None or size.is_null else laid(tree, size, registry(), problems)


def laid(tree: Node, asked: Node, registry: Any, problems: list[str]) -> Node:
    """A job's tree with the overlay that ``asked`` names."""
    name = str(asked.raw if asked.raw is not None else asked.value).strip().lower()
    if name not in names():
        problems.append(f"{asked.where}: vram: there are settings for {', '.join(names())}, found {asked.shown()}")
        return tree
    return _Laying(tree, f"vram={name}", registry, problems).run(_overlay(name))


class _Laying:
    """One overlay being laid: ``tree`` as it is so far, ``written`` as it was."""

    def __init__(self, tree: Node, where: str, registry: Any, problems: list[str]) -> None:
        self.tree = self.written = tree
        self.where, self.registry, self.problems = where, registry, problems

    def run(self, overlay: dict[str, dict[str, Any]]) -> Node:
        for key, value in overlay.get("job", {}).items():
            self._set((key,), value, self.tree.value.get(key), JobConfig.model_fields[key].default)
        stages = self.tree.value.get("stages")
        count = len(stages.value) if stages is not None and isinstance(stages.value, list) else 0
        for root in [(), *(("stages", str(index)) for index in range(count))]:
            for path, kind in list(_components(_at(self.tree, root), root)):
                if path[-1] != "cameras" or not self._follows(path[:-1]):
                    self._component(path, kind, overlay.get(kind, {}))
        return self.tree

    def _component(self, path: Path_, kind: str, options: dict[str, Any]) -> None:
        fields = self._fields(kind, _inherited(self.tree, path, "type"))
        for key, value in options.items():
            own = _at(self.tree, (*path, key))
            # What a stage does not say itself it has from the top, where the overlay has been laid already.
            from_top = path[0] == "stages" and _at(self.tree, (*path, "type")) is None and _at(self.tree, path[2:])
            if key not in fields or (own is None and from_top):
                continue
            default, before = fields[key].default, _inherited(self.written, path, key)
            self._set((*path, key), value, own if own is not None else before, default)
            if key == "batch":
                self._same_update(path, default if before is None else before.value)

    def _fields(self, kind: str, named: Node | None) -> dict[str, Any]:
        """The options of the component of a name; none where there is none of it, which is told elsewhere."""
        try:
            found = self.registry.find(kind, str(named.raw)).load() if named is not None else None
        except UserError:
            return {}
        return {} if found is None else dict(found.Config.model_fields)

    def _follows(self, path: Path_) -> bool:
        """Whether a data source makes pictures of the scene itself: its cameras are of its updates, not of a step."""
        named = _inherited(self.tree, path, "type")
        try:
            return named is not None and hasattr(self.registry.find("data", str(named.raw)).load(), "update")
        except UserError:
            return False

    def _set(self, path: Path_, value: Any, now: Node | None, default: Any) -> None:
        """Set a value of the overlay, unless the user typed another, or what is there will do."""
        if now is not None and now.where.endswith(_TYPED):
            return
        there = default if now is None else now.value
        if isinstance(value, dict) and "at most" in value:
            whole = _at(self.tree, (*path[:-1], "orbit")) if path[-1] == "batch" else None
            most = max(value["at most"], int(whole.value) if whole is not None else 1)
            if not isinstance(there, int) or there <= most:
                return
            value = most
        elif isinstance(value, dict):
            if there != value["instead of"]:
                return
            value = value["take"]
        self.tree = apply(self.tree, Override(path, from_python(value, self.where)), self.problems)

    def _same_update(self, path: Path_, was: Any) -> None:
        """As many views per update as before: in more micro-batches, where the numbers divide."""
        now = _at(self.tree, (*path, "batch"))
        root = path[:2] if path[0] == "stages" else ()
        asked = _inherited(self.written, (*root, "accumulate"))
        typed = asked is not None and asked.where.endswith(_TYPED)
        if now is None or now.where != self.where or not isinstance(was, int) or was % now.value or typed:
            return
        count = (1 if asked is None else int(asked.value)) * was // now.value
        self.tree = apply(self.tree, Override((*root, "accumulate"), from_python(count, self.where)), self.problems)


def _components(block: Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Places of components under a block, with their kinds."""
    if block is None or not isinstance(block.value, (dict, list)):
        return
    items = block.value.items() if isinstance(block.value, dict) else ((str(k), v) for k, v in enumerate(block.value))
    for key, node in items:
        if key == "stages":
            continue
        if key in _PARTS and isinstance(node.value, (dict, str)):
            yield (*path, key), _PARTS[key]
        yield from _components(node, (*path, key))


def _inherited(tree: Node, path: Path_, last: str = "") -> Node | None:
    """What holds at a place (of its key ``last``): written there, or for a stage at the top."""
    for place in (path, path[2:] if path[0] == "stages" else ()):
        node = _at(tree, place) if place else None
        if node is not None and last and isinstance(node.value, dict):
            node = node.value.get(last, node.under if last == "type" else None)
        elif last not in ("", "type"):
            node = None
        if node is not None:
            return node
    return None


def _at(tree: Node, path: Path_) -> Node | None:
    node: Node | None = tree
    for part in path:
        if node is None or not isinstance(node.value, (dict, list)):
            return None
        if isinstance(node.value, list):
            node = node.value[int(part)] if part.isdecimal() and int(part) < len(node.value) else None
        else:
            node = node.value.get(part)
    return node
