"""Writing a checked job back as plain values and as YAML that loads to an equal job."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from core.config.base import ComponentSpec
from core.config.nodes import read_scalar
from core.config.schedule import Schedule


def to_plain(value: Any) -> Any:
    """Options, specs and schedules as the dicts, lists and scalars they would be written as."""
    if isinstance(value, ComponentSpec):
        options = to_plain(value.options) if value.options is not None else {}
        return {"type": value.name, **options} if options else value.name
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {info.alias or name: to_plain(getattr(value, name)) for name, info in fields.items()}
    if isinstance(value, Schedule):
        return to_plain(value.dump())
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if isinstance(value, Mapping):
        return {to_plain(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value.as_posix() if isinstance(value, PurePath) else value


class _Dumper(yaml.SafeDumper):
    """Leaves it to :func:`_text` what must be quoted, and writes no aliases."""

    yaml_implicit_resolvers = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # list items stand under their key, not beside it


_elsewhere = yaml.resolver.Resolver()
_STR = "tag:yaml.org,2002:str"


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Quoted wherever our reading or that of YAML 1.1 (other tools) would make it anything but text."""
    same = isinstance(read_scalar(text), str) and _elsewhere.resolve(yaml.ScalarNode, text, (True, False)) == _STR
    return dumper.represent_scalar(_STR, text, style="|" if "\n" in text else None if same else '"')


def _scalar(dumper: yaml.SafeDumper, value: Any) -> yaml.Node:
    if value is None or isinstance(value, bool):
        return dumper.represent_scalar(_STR, "null" if value is None else str(value).lower())
    text = repr(value).replace("inf", ".inf").replace("nan", ".nan")
    # YAML 1.1 takes 1e-15 for a text and 1.0e-15 for a number.
    return dumper.represent_scalar(_STR, text.replace("e", ".0e") if "e" in text and "." not in text else text)


def _list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    flat = not any(isinstance(v, (dict, list)) for v in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flat)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
for _type in (type(None), bool, int, float):
    _Dumper.add_representer(_type, _scalar)


def dump_yaml(resolved: Mapping[str, Any]) -> str:
    """YAML of a job's ``resolved`` values; ``load_job`` reads an equal job from it."""
    text: str = yaml.dump(dict(resolved), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text
