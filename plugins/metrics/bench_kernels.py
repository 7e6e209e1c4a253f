"""``launch.py bench kernels``: every kernel's backends, forward and backward, against plain PyTorch in the same run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.kernels.bench import bench as measure


def bench(
    threads: Annotated[int, typer.Option(help="Threads of every backend.")] = 2,
    repeats: Annotated[int, typer.Option(help="Interleaved repeats; the median counts.")] = 5,
) -> list[dict[str, Any]]:
    """Milliseconds of forward and backward, and how many times faster than eager PyTorch."""
    rows = measure(threads=threads, repeats=repeats)
    for row in rows:
        print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    return rows
