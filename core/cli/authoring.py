"""``new-plugin`` and ``check``: for those who write components."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli.catalogue import lookup
from core.cli.runs import Overrides, check_overrides
from core.discovery import get_registry
from core.errors import ConfigError, UserError, did_you_mean


def attach(app: typer.Typer) -> None:
    """Add this module's verbs."""
    app.command("new-plugin")(new_plugin)
    app.command("check")(check)


def new_plugin(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and dashes.")],
    kind: Annotated[str, typer.Option("--kind", help="What it adds; `describe KIND` explains a kind.")] = "geometry",
    package: Annotated[bool, typer.Option("--package", help="A distribution to install, not a folder.")] = False,
    into: Annotated[Path | None, typer.Option("--into", metavar="DIR", help="Where to put it.")] = None,
) -> None:
    """Write a small working plugin with its test, to start from."""
    from core.scaffold import write_plugin

    taken = get_registry().plugin(name)
    if taken is not None:
        raise UserError(f"there is a plugin '{taken.name}' already ({taken.where}); a second one would not be loaded")
    written = write_plugin(name, kind, into, package)
    for file in written.files:
        print(file)
    print(written.next_steps)


def check(
    name: Annotated[str, typer.Argument(help="A component: NAME or PLUGIN/NAME.")],
    overrides: Overrides = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Which kind, where several have the name.")] = None,
) -> None:
    """Build a component and test that it keeps its kind's contract: `check NAME [option=value ...]`."""
    check_overrides(overrides or [])
    registry = get_registry()
    found = lookup(registry, name, kind)
    if not found:
        raise UserError(f"there is no component '{name}'.{did_you_mean(name, [e.name for e in registry.entries()])}")
    from core.testing import check_component

    for entry in found:
        for line in check_component(entry.kind, entry.qualified, registry, _options(overrides or [])):
            print(f"{entry.kind} {entry.name}: {line}")


def _options(overrides: list[str]) -> dict[str, Any]:
    """``key=value`` words as nested options."""
    from core.config.merging import parse_override

    problems: list[str] = []
    options: dict[str, Any] = {}
    for override in (parse_override(text, problems) for text in overrides):
        if override is not None:
            node = options
            for part in override.path[:-1]:
                node = node.setdefault(part, {})
            node[override.path[-1]] = override.node.plain()
    if problems:
        raise ConfigError(problems)
    return options
