"""The program's verbs. Building this application imports no torch; each verb imports what it needs when called."""

from __future__ import annotations

from typing import Annotated

import typer

from core import __version__
from core.cli import assets, authoring, catalogue, commands, machine, preview, runs, sample, views
from core.cli.verbs import Verbs

app = typer.Typer(
    name="maquette",
    cls=Verbs,
    help="Turn a sentence or a picture into a 3D object, and fit the models that do it.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(value: bool) -> None:
    if value:
        print(f"maquette {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Load only what ships with Maquette.")] = False,
    block: Annotated[
        list[str] | None, typer.Option("-p", metavar="no:NAME", help="Leave out the plugin NAME; repeatable.")
    ] = None,
) -> None:
    """The last three are taken out of the command line before it gets here, so they may stand anywhere."""


for group in (runs, preview, sample, views, assets, catalogue, authoring, machine, commands):
    group.attach(app)
