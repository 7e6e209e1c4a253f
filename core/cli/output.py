"""Plain text for terminals and pipes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Left-aligned columns; the last one is not padded, and is cut to the terminal's width on a terminal."""
    lines = [list(header), *map(list, rows)] if header else [list(r) for r in rows]
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        texts = [t if len(t) <= width else t[: width - 1] + "…" for t in texts]
    return "\n".join(texts)


def write_json(value: Any, file: Path | None = None) -> None:
    """Print ``value`` as JSON, or write it to ``file``; paths become strings."""
    text = json.dumps(value, indent=2, default=str)
    if file is None:
        print(text)
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None


def check_writable(file: Path) -> None:
    """Refuse, before any work is done, a file that could not be written after it.

    Raises:
        UserError: naming what is in the way.
    """
    if file.is_dir():
        raise UserError(f"{file} cannot be written: it is a folder")
    above = next(p for p in file.absolute().parents if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "cannot be written to" if above.is_dir() else "is not a folder"
        raise UserError(f"{file} cannot be written: {above} {what}")
