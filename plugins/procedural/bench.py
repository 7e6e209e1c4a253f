"""``launch.py bench objects``: how fast captioned pictures are made, and a contact sheet of what they show."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from plugins.procedural.contact_sheet import contact_sheet
from plugins.procedural.dataset import CATEGORY_NAMES, COLOR_NAMES, sample_batch
from plugins.procedural.splits import HELD_OUT_PAIRS


def bench(
    images: Annotated[int, typer.Option(help="Pictures to make, 64x64 at 2x2 samples.")] = 1024,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet, one row per category.")] = None,
) -> dict[str, Any]:
    """Pictures a second on this machine (objects, captions and cameras included)."""
    sample_batch(0, 8)  # compiles
    start = time.perf_counter()
    sample_batch(1, images)
    rate = images / (time.perf_counter() - start)
    threads = os.environ.get("NUMBA_NUM_THREADS", "all")
    print(f"{rate:.0f} pictures of 64x64 a second, {threads} threads")
    print(f"{len(CATEGORY_NAMES)} categories, {len(COLOR_NAMES) - 1} colours, {len(HELD_OUT_PAIRS)} pairs held out")
    if sheet is not None:
        contact_sheet(sheet, color="natural")
        print(sheet)
    return {"pictures_per_second": rate, "threads": threads, "categories": list(CATEGORY_NAMES)}
