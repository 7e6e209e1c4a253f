"""``bench`` and ``eval``: verbs whose work is done by components of kind ``command``.

``bench kernels`` runs the command ``bench-kernels``, ``eval text`` the command ``eval-text``. A command is a function
with annotated parameters, which become its arguments and options as in typer; it prints for people, and may return
an exit code or figures (dictionaries and lists), which ``--json FILE`` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli.output import check_writable, table, write_json
from core.discovery import get_registry
from core.errors import UserError, did_you_mean

_PASS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to FILE.")]


def attach(app: typer.Typer) -> None:
    """Add this module's verbs."""
    app.command("bench", context_settings=_PASS)(bench)
    app.command("eval", context_settings=_PASS)(evaluate)


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What to measure; `bench list` shows what there is.")] = "list",
    json_file: Json = None,
) -> int:
    """Measure speed: `bench NAME [options] [--json FILE]`."""
    return _dispatch("bench", name, context.args, json_file)


def evaluate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What to evaluate; `eval list` shows what there is.")] = "list",
    json_file: Json = None,
) -> int:
    """Measure quality: `eval NAME [options] [--json FILE]`."""
    return _dispatch("eval", name, context.args, json_file)


def _dispatch(verb: str, name: str, words: Sequence[str], json_file: Path | None) -> int:
    prefix = f"{verb}-"
    known = {e.name.removeprefix(prefix): e for e in get_registry().entries("command") if e.name.startswith(prefix)}
    if name in ("list", "--help"):
        print(table([[f"{verb} {short}", e.doc] for short, e in known.items()]) or f"no command offers '{verb}'")
        return 0
    if name.rpartition("/")[2] not in known:
        raise UserError(f"there is nothing to {verb} named '{name}'.{did_you_mean(name, known)}")
    plugin, slash, short = name.rpartition("/")
    if json_file is not None:
        check_writable(json_file)
    function = get_registry().find("command", f"{plugin}{slash}{prefix}{short}").load()
    result = call(function, words, f"maquette {verb} {name}")
    if isinstance(result, int):
        return result
    if json_file is not None:
        if result is None:
            raise UserError(f"'{verb} {name}' gives no figures, so there is nothing to write to {json_file}")
        write_json(result, json_file)
    return 0


def call(function: Any, words: Sequence[str], program: str) -> Any:
    """Call ``function`` with arguments parsed from ``words`` by its annotations; returns what it returns."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    return app(list(words), prog_name=program, standalone_mode=False)
