"""``export``: assets of a finished (or interrupted) run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli.runs import Overrides, check_overrides, saved_config
from core.discovery import get_registry
from core.errors import UserError


def attach(app: typer.Typer) -> None:
    """Add this module's verb."""
    app.command("export")(export)


def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")],
    overrides: Overrides = None,
    to: Annotated[str, typer.Option("--to", metavar="A,B", help="Exporters; `describe exporter` lists them.")] = "glb",
) -> None:
    """Export a run's object: `export RUN --to glb,obj,video texture_size=1024`."""
    check_overrides(overrides or [])
    saved_config(folder)
    names = [part.strip() for part in to.split(",") if part.strip()]
    if not names:
        raise UserError("--to names no exporter")
    registry = get_registry()
    entries = [registry.find("exporter", name) for name in names]
    print(entries)
