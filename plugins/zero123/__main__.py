"""``python -m plugins.zero123 SOURCE TARGET [--raw]``: a checkpoint to a diffusers folder, or such a folder back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.errors import UserError
from plugins.zero123.checkpoint import convert_checkpoint, export_checkpoint


def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint, or a folder in diffusers' formats.")],
    target: Annotated[Path, typer.Argument(help="The folder, or the .ckpt or .safetensors, to write.")],
    raw: Annotated[bool, typer.Option("--raw", help="Take the trained weights, not their moving average.")] = False,
) -> None:
    """Convert Zero-1-to-3 weights, either way."""
    try:
        made = export_checkpoint(source, target) if source.is_dir() else convert_checkpoint(source, target, not raw)
    except UserError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    print(made)


if __name__ == "__main__":
    typer.run(convert)
