"""From a tree to validated options: every value is held against the type of its field, and every fault is kept.

Types are strict: no ``"3"`` for 3, no 1 for true. Whole numbers may be written ``1e4``. A field typed ``str`` takes the
text as written, whatever YAML would make of it, so a prompt may be ``yes``, ``123``, ``null`` or ``[a, b]``; where
``str | None`` is allowed, an unquoted ``null`` is None. Ranges and validators are pydantic's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from core.config.base import ComponentSpec, Config, Slot
from core.config.dump import to_plain
from core.config.nodes import Node, from_python, read_scalar
from core.config.rules import FAILED, NUMBERS, about_type, descend, hint, is_path, reads_itself, same_shape
from core.config.schedule import KEYS as SCHEDULE_KEYS
from core.config.schedule import Schedule
from core.config.words import (
    LISTS,
    UNIONS,
    expected,
    first_sentence,
    holds_component,
    join,
    pydantic_message,
    slot_of,
    with_article,
)
from core.errors import UserError, did_you_mean

__all__ = ["FAILED", "Checker", "Use"]


@dataclass
class Use:
    """A component that a configuration uses, for the check of signals."""

    spec: ComponentSpec
    entry: Any
    target: Any
    where: str


@dataclass
class Checker:
    """Checks trees against types.

    Attributes:
        registry: where components are looked up.  disabled: plugins that must not be used.
        problems: one sentence per fault, in the order of finding.
        uses: the components seen.  lost: kinds of which a component could not be found.
    """

    registry: Any
    disabled: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def fail(self, where: str, path: str, message: str) -> Any:
        self.problems.append(f"{where}: {path}: {message}" if path else f"{where}: {message}")
        return FAILED

    # -- classes of options ------------------------------------------------------------------------------------

    def model(self, cls: type[BaseModel], node: Node, path: str, place: str, known: Sequence[str] = ()) -> Any:
        """An instance of ``cls`` from the mapping ``node``, or FAILED.

        Args:
            place: where to point when a required value is missing.
            known: further names to offer when a key is unknown.
        """
        names = {info.alias or name: name for name, info in cls.model_fields.items()}
        for key, child in node.value.items():
            if key not in names:
                tip = did_you_mean(key, [*names, *known])
                self.fail(child.place, join(path, key), f"unknown key.{tip}")
        data: dict[str, Any] = {}
        failed: set[str] = set()
        for key, name in names.items():
            value = self._field(cls, name, node.value.get(key), join(path, key), place)
            if value is FAILED:
                failed.add(key)
            elif value is not PydanticUndefined:
                data[key] = value
        return self._validated(cls, data, failed, node, path, place)

    def _field(self, cls: type[BaseModel], name: str, node: Node | None, path: str, place: str) -> Any:
        info = cls.model_fields[name]
        slot = slot_of(info.metadata)
        if node is None:
            if info.is_required():
                doc = first_sentence(info.description)
                what = f"{expected(info.annotation, slot)} is required and was not given"
                return self.fail(place, path, what + (f" ({doc})" if doc else ""))
            default = info.get_default(call_default_factory=True, validated_data={})
            if not default or not (slot or holds_component(info.annotation)):
                return PydanticUndefined
            # A default such as "white" is a name still to be looked up.
            node = from_python(to_plain(default), f"{place} (default)")
        if reads_itself(cls, name):
            made, _ = self._trial(info.annotation, slot, node, path)
            return (node.raw if info.annotation is str else node.plain()) if made is FAILED else made
        return self.value(info.annotation, slot, node, path)

    def _validated(
        self, cls: type[BaseModel], data: dict[str, Any], failed: set[str], node: Node, path: str, place: str
    ) -> Any:
        """Ranges and validators; errors that may only follow from a value already reported are left out."""
        try:
            made = cls.model_validate(data, strict=True)
        except ValidationError as error:
            faults: dict[tuple[str | int, ...], ErrorDetails] = {}
            for detail in error.errors(include_url=False):
                if failed and (not detail["loc"] or detail["loc"][0] in failed):
                    continue
                at, _ = descend(node, detail["loc"])
                if at not in faults or about_type(faults[at]):
                    faults[at] = detail  # of a union's members, the one that came closest
            for at, detail in faults.items():
                found = descend(node, at)[1]
                where = found.where if found else place
                self.fail(where, join(path, *at), pydantic_message(detail, found.shown() if found else ""))
            return FAILED
        except UserError as error:
            return FAILED if failed else self.fail(place, path, str(error))
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
        ) as error:  # a validator's own mistake
            text = f"cannot be checked: {type(error).__name__}: {error}"
            return FAILED if failed else self.fail(place, path, text)
        return FAILED if failed else made

    # -- single values -----------------------------------------------------------------------------------------

    def value(self, tp: Any, slot: Slot | None, node: Node, path: str) -> Any:
        """``node`` as a value of type ``tp``, or FAILED."""
        origin, args = get_origin(tp), get_args(tp)
        if origin is Annotated:
            return self.value(args[0], slot_of(args[1:]) or slot, node, path)
        if origin in UNIONS:
            return self._union(args, slot, node, path)
        if node.broken and tp is not str and not is_path(tp):
            self.lost |= {slot.kind} if slot else set()
            return self.fail(node.where, path, f"expected {expected(tp, slot)}; {node.broken}")
        if tp is ComponentSpec:
            return self.component(slot.kind if slot else "component", node, path)
        if origin in LISTS or tp in LISTS:
            return self._list(tp, origin or tp, args, slot, node, path)
        if origin in (dict, Mapping) or tp is dict:
            return self._dict(args or (str, Any), slot, node, path)
        if isinstance(tp, type) and issubclass(tp, BaseModel):
            return self._submodel(tp, node, path)
        return self._leaf(tp, origin, args, slot, node, path)

    def _leaf(self, tp: Any, origin: Any, args: tuple[Any, ...], slot: Slot | None, node: Node, path: str) -> Any:
        if origin is Literal:
            words = {str(a).lower() if isinstance(a, bool) else str(a): a for a in args}
            return self._choice(words, node, path)
        if isinstance(tp, type) and issubclass(tp, enum.Enum):
            return self._choice({str(m.value): m for m in tp}, node, path)
        if tp is Schedule:
            return self._schedule(node, path)
        if tp is str or is_path(tp):
            if node.raw is None or (tp is not str and (not node.raw or isinstance(node.value, (dict, list)))):
                return self.fail(node.where, path, f"expected {expected(tp)}, found {node.shown()}")
            return node.raw if tp is str else Path(node.raw)
        read = NUMBERS.get(tp)
        if read is None:
            return node.plain()
        found = read(node.value)
        if found is FAILED:
            return self.fail(node.where, path, f"expected {expected(tp)}, found {node.shown()}{hint(tp, node)}")
        return found

    def _schedule(self, node: Node, path: str) -> Any:
        keys = node.value if isinstance(node.value, dict) else {}
        strange = {key: child for key, child in keys.items() if key not in SCHEDULE_KEYS}
        for key, child in strange.items():
            self.fail(child.place, join(path, key), f"unknown key of a schedule.{did_you_mean(key, SCHEDULE_KEYS)}")
        if strange:
            return FAILED
        try:
            return Schedule.parse(node.plain())
        except ValueError as error:
            return self.fail(node.where, path, str(error))

    def _choice(self, choices: dict[str, Any], node: Node, path: str) -> Any:
        if node.raw in choices:
            return choices[node.raw]
        near = get_close_matches((node.raw or "").lower(), choices, n=1, cutoff=0.7)
        tip = f". Did you mean '{near[0]}'?" if near else ""
        return self.fail(node.where, path, f"expected one of {', '.join(choices)}; found {node.shown()}{tip}")

    def _union(self, args: tuple[Any, ...], slot: Slot | None, node: Node, path: str) -> Any:
        members = [a for a in args if a is not type(None)]
        if len(members) < len(args) and node.is_null:
            return None
        # Text last: it would take anything.
        trials = [(m, self._trial(m, slot, node, path)) for m in sorted(members, key=lambda m: m is str)]
        for _, (made, trial) in trials:
            if made is not FAILED:
                self.uses += trial.uses
                return made
        fitting = [t for m, (_, t) in trials if same_shape(m, node)]
        if len(members) > 1 and not fitting:
            words = " or ".join(expected(m, slot) for m in members)
            return self.fail(node.where, path, f"expected {words}, found {node.shown()}")
        best = min(fitting or [t for _, (_, t) in trials], key=lambda t: len(t.problems))
        self.problems += best.problems
        self.uses += best.uses
        self.lost |= best.lost
        return FAILED

    def _trial(self, tp: Any, slot: Slot | None, node: Node, path: str) -> tuple[Any, Checker]:
        trial = Checker(self.registry, self.disabled)
        return trial.value(tp, slot, node, path), trial

    def _list(self, tp: Any, origin: Any, args: tuple[Any, ...], slot: Slot | None, node: Node, path: str) -> Any:
        if not isinstance(node.value, list):
            return self.fail(node.where, path, f"expected {expected(tp, slot)}, found {node.shown()}")
        count = len(node.value)
        kinds: Sequence[Any] = [args[0] if args else Any] * count
        if origin is tuple and args and args[-1] is not Ellipsis:
            if len(args) != count:
                return self.fail(node.where, path, f"expected {expected(tp, slot)}, found {count}")
            kinds = args
        made = [
            self.value(k, slot, child, join(path, i))
            for i, (k, child) in enumerate(zip(kinds, node.value, strict=True))
        ]
        if any(v is FAILED for v in made):
            return FAILED
        return made if origin in (list, Sequence) else origin(made)

    def _dict(self, args: tuple[Any, ...], slot: Slot | None, node: Node, path: str) -> Any:
        if not isinstance(node.value, dict):
            return self.fail(node.where, path, f"expected a block of 'name: value' lines, found {node.shown()}")
        made: dict[Any, Any] = {}
        named = slot is not None and not holds_component(args[1])
        for key, child in node.value.items():
            if named and child.is_null:
                continue  # takes back what a file below wrote
            if named and slot is not None:
                self._named(slot.kind, key, child, path)
            word = self.value(args[0], None, Node(read_scalar(key), child.place, key), path)
            made[word] = self.value(args[1], slot, child, join(path, key))
        return FAILED if any(v is FAILED for v in [*made, *made.values()]) else made

    def _submodel(self, tp: type[BaseModel], node: Node, path: str) -> Any:
        if isinstance(node.value, str) and "type" in tp.model_fields:
            node = Node({"type": node}, node.where, None, node.key)
        if not isinstance(node.value, dict):
            options = ", ".join(tp.model_fields)
            return self.fail(node.where, path, f"expected a block of options ({options}), found {node.shown()}")
        if node.under is not None and "type" in tp.model_fields and "type" not in node.value:
            node = Node({"type": node.under, **node.value}, node.where, None, node.key)
        return self.model(tp, node, path, node.place)

    # -- components --------------------------------------------------------------------------------------------

    def component(self, kind: str, node: Node, path: str) -> Any:
        """The spec of a component written ``NAME`` or ``{type: NAME, …}``, or FAILED."""
        options: dict[str, Node] = {}
        name: Node | None = node
        if isinstance(node.value, dict):
            name = node.value.get("type", node.under)
            options = {k: v for k, v in node.value.items() if k != "type"}
        if name is None or not isinstance(name.value, (str, int, float)) or name.raw is None:
            known = did_you_mean("", [e.name for e in self.registry.entries(kind)])
            found = "no type in it" if name is None else name.shown()
            self.lost.add(kind)
            return self.fail(
                node.place, path, f"expected {with_article(kind)} ({{type: NAME, …}}), found {found}.{known}"
            )
        found = self.find(kind, name.raw, name.where, path)
        if found is FAILED:
            return FAILED
        entry, target = found
        made = self.options(target, kind, name.raw, Node(options, node.where, key=node.key), path, name.where)
        spec = ComponentSpec(kind, name.raw, None if made is FAILED else made)
        self.uses.append(Use(spec, entry, target, name.where))
        return FAILED if made is FAILED else spec

    def options(self, target: Any, kind: str, name: str, node: Node, path: str, place: str) -> Any:
        """The options of a component: an instance of its ``Config``, or None where it has none."""
        config = getattr(target, "Config", None)
        if isinstance(config, type) and issubclass(config, Config):
            return self.model(config, node, path, place)
        for key, child in node.value.items():
            self.fail(child.place, join(path, key), f"{kind} '{name}' has no options")
        return FAILED if node.value else None

    def find(self, kind: str, name: str, where: str, path: str) -> Any:
        """``(entry, object)`` of a name, or FAILED."""
        try:
            entry = self.registry.find(kind, name)
            if entry.plugin in self.disabled:
                self.lost.add(kind)
                return self.fail(where, path, f"{kind} '{name}' is of plugin '{entry.plugin}', which this job disables")
            return entry, entry.load()
        except UserError as error:
            self.lost.add(kind)
            return self.fail(where, path, str(error))

    def _named(self, kind: str, name: str, node: Node, path: str) -> None:
        """A component that is named by a key: a loss with its weight."""
        found = self.find(kind, name, node.place, path)
        if found is not FAILED:
            self.uses.append(Use(ComponentSpec(kind, name, None), found[0], found[1], node.place))
