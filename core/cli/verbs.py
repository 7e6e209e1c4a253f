"""The program's group of verbs: its own, and those that plugins add as commands named ``import-…``."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

PREFIX = "import-"
"""Commands with this prefix are verbs of their own; ``bench-…`` and ``eval-…`` are reached by these two verbs."""


class Verbs(TyperGroup):
    """A verb that is none of the program's own is looked up among the plugins' commands."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's command; None where nobody has it."""
        found = super().get_command(ctx, cmd_name)
        return _added(cmd_name) if found is None and cmd_name.startswith(PREFIX) else found

    def list_commands(self, ctx: Any) -> list[str]:
        """The program's own verbs, then the plugins'."""
        return [*super().list_commands(ctx), *(entry.name for entry in _entries())]


def _entries() -> list[Any]:
    from core.discovery import get_registry

    return [entry for entry in get_registry().entries("command") if entry.name.startswith(PREFIX)]


def _added(name: str) -> Any:
    """A plugin's command as a verb, its annotated parameters as arguments and options."""
    entry = next((e for e in _entries() if e.name == name), None)
    if entry is None:
        return None
    app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    app.command(name)(entry.load())
    return typer.main.get_command(app)
