"""A component's page, generated from its ``Config`` class: options, types, defaults, documentation, an example."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from core.cli.output import table
from core.config.base import ComponentSpec, Config, Slot
from core.config.schedule import Schedule
from core.registry import Entry

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}


@dataclass(frozen=True)
class Option:
    """One option, as shown.

    Attributes:
        name: dotted where it is nested.  type: in words.  doc: one paragraph.
        required: without default.  default: plain data, as it would stand in YAML.
    """

    name: str
    type: str
    doc: str
    required: bool
    default: Any = None


def component_text(entry: Entry) -> str:
    """The whole page of one component.

    Raises:
        UserError: it cannot be imported.
    """
    target = entry.load()
    parts = [f"{entry.kind} {entry.name}: {entry.doc}", _facts(entry), _documentation(target)]
    found = options(config_class(target)) if not inspect.isfunction(target) else []
    if found:
        parts.append("options\n" + _options_text(found))
    elif not inspect.isfunction(target):
        parts.append("It has no options.")
    parts.append("example\n" + _indent(example(entry, found)))
    return "\n\n".join(p for p in parts if p)


def config_class(target: Any) -> type[Config]:
    """The ``Config`` of a component class; the empty one for a function."""
    return getattr(target, "Config", Config)


def options(config: type[Config], prefix: str = "") -> list[Option]:
    """The fields of ``config`` in order, nested configurations in place."""
    return list(_walk(config, prefix))


def _walk(config: type[Config], prefix: str) -> Iterator[Option]:
    for name, info in config.model_fields.items():
        path, nested = f"{prefix}{info.alias or name}", info.annotation
        default = None if info.is_required() else plain(info.get_default(call_default_factory=True))
        if inspect.isclass(nested) and issubclass(nested, Config):
            yield from _walk(nested, f"{path}.")
            continue
        text = " ".join((info.description or "").split())
        yield Option(path, _field_type(info), text, info.is_required(), default)


def plain(value: Any) -> Any:
    """``value`` as YAML would hold it."""
    if isinstance(value, Schedule):
        return value.dump()
    if isinstance(value, ComponentSpec):
        return {"type": value.name, **plain(value.options)} if value.options is not None else {"type": value.name}
    if isinstance(value, Config):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def _field_type(info: FieldInfo) -> str:
    bounds = [f"{sign} {getattr(m, key)}" for m in info.metadata for key, sign in _BOUNDS.items() if hasattr(m, key)]
    return " ".join([type_text(info.annotation, info.metadata), *bounds])


def type_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """An annotation in words: ``Annotated[ComponentSpec, Slot("prior")] | None`` is "prior or none"."""
    slot = next((m for m in metadata if isinstance(m, Slot)), None)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0], [*metadata, *arguments[1:]])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(a, metadata) for a in arguments)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (list, tuple, set, frozenset):
        inner = dict.fromkeys(type_text(a, metadata) for a in arguments if a is not Ellipsis)
        return f"list of {' and '.join(inner)}"
    if origin is dict:
        return f"map from {slot.kind if slot else type_text(arguments[0])} to {type_text(arguments[1])}"
    if annotation is ComponentSpec:
        return slot.kind if slot else "component"
    if annotation in (None, type(None)):
        return "none"
    return str(getattr(annotation, "__name__", annotation)).replace("Schedule", "number or schedule")


def _facts(entry: Entry) -> str:
    rows = [["plugin", entry.plugin], ["target", entry.target]]
    rows += [[word, ", ".join(names)] for word, names in (("needs", entry.needs), ("gives", entry.gives)) if names]
    if entry.extra:
        rows.append(["extra", f'pip install "maquette[{entry.extra}]"'])
    return table(rows)


def _documentation(target: Any) -> str:
    """The module's documentation, then the object's own (not one that it inherited)."""
    module = inspect.getdoc(sys.modules[target.__module__]) if hasattr(target, "__module__") else None
    own = inspect.cleandoc(target.__doc__) if getattr(target, "__doc__", None) else None
    return "\n\n".join(dict.fromkeys(text for text in (module, own) if text))


def _options_text(found: list[Option]) -> str:
    lines = []
    for option in found:
        default = "required" if option.required else f"= {flow(option.default)}"
        lines.append(f"  {option.name}: {option.type}  {default}")
        if option.doc:
            lines.append(f"      {option.doc}")
    return "\n".join(lines)


def flow(value: Any) -> str:
    """One-line YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.replace("\n...\n", "").strip()


def example(entry: Entry, found: list[Option]) -> str:
    """How the component stands in a job file; for those that are not part of a job, the command line."""
    settings = _nested({o.name: f"<{o.type}>" if o.required else o.default for o in found})
    if entry.kind in ("exporter", "converter"):
        return f"maquette export RUN --to {entry.name}" + "".join(f" {o.name}={flow(o.default)}" for o in found[:2])
    if entry.kind == "command":
        verb, _, rest = entry.name.partition("-")
        return f"maquette {verb} {rest}"
    if entry.kind == "loss":
        return _block({"losses": {entry.name: 0.1}})
    if entry.kind in ("task", "generator"):
        return _block({"task": entry.name, **settings})
    spec = {"type": entry.name, **settings}
    if entry.kind == "score":
        return _block({"guidance": [{"prior": "<prior>", "score": spec}]})
    if entry.kind == "prior":
        return _block({"guidance": [{"prior": spec, "score": "sds"}]})
    return _block({"listeners": [spec]} if entry.kind == "listener" else {entry.kind: spec})


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        node = tree
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _block(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)).rstrip()


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
