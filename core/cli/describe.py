"""A component's page: what it is, where it comes from, its options and an example, all generated from its code."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from core.cli.output import table
from core.config.base import Config
from core.config.describe import Option, describe_options, example_yaml
from core.config.dump import dump_yaml
from core.registry import Entry

_NOTE = re.compile(r"(?<=\S)  # .*$")
_MUST = re.compile(r"\s*# [\w.]+:  # .*\(required\)$")
_REMARK = re.compile(r"\s*# (?![\w.]+:  # required$)")


def component_text(entry: Entry) -> str:
    """The whole page of one component.

    Raises:
        UserError: it cannot be imported.
    """
    target = entry.load()
    config = config_class(target)
    found = describe_options(config)
    parts = [f"{entry.kind} {entry.name}: {entry.doc}", _facts(entry), _documentation(target)]
    if found:
        parts.append("options\n" + _options_text(found))
    parts.append("example\n" + _indent(example(entry, config)))
    return "\n\n".join(p for p in parts if p)


def config_class(target: Any) -> type[Config] | None:
    """The ``Config`` of a component class; None for a function, or where it has no options."""
    config = getattr(target, "Config", None)
    return config if isinstance(config, type) and issubclass(config, Config) and config.model_fields else None


def example(entry: Entry, config: type[Config] | None) -> str:
    """How the component stands in a job file; for a command, what to type."""
    if entry.kind == "command":
        verb, _, rest = entry.name.partition("-")
        return f"maquette {verb} {rest}"
    text = _bare(example_yaml(entry.kind, entry.name, config).rstrip())
    body = text.removeprefix(f"{entry.kind}:").lstrip("\n")
    if entry.kind in ("prior", "score"):
        other = "score: sds" if entry.kind == "prior" else "prior: …"
        return f"guidance:\n  - {other}\n" + _indent(text, "    ")
    if entry.kind == "prompt":
        return "prompts:" + text.removeprefix("prompt:")
    if entry.kind in ("listener", "exporter"):
        key = {"listener": "listeners", "exporter": "export"}[entry.kind]
        return f"{key}:\n  - " + "\n  ".join(body.lstrip().splitlines())
    return text


def _bare(text: str) -> str:
    """Without the explanations, which stand under "options" already; what must be given stays a comment."""
    lines = (_NOTE.sub("", line) + ("  # required" if _MUST.match(line) else "") for line in text.splitlines())
    return "\n".join(line for line in lines if line.strip() and not _REMARK.match(line))


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
        default = "required" if option.required else f"default {flow(option.default)}"
        lines.append(f"  {option.name}: {option.type}; {default}")
        if option.doc:
            lines.append(f"      {option.doc}")
    return "\n".join(lines)


def flow(value: Any) -> str:
    """A default on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {flow(v)}" for k, v in value.items()) + "}"
    return dump_yaml({"x": value}).strip().removeprefix("x:").strip()


def _indent(text: str, by: str = "  ") -> str:
    return "\n".join(f"{by}{line}" for line in text.splitlines())
