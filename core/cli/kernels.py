"""The command ``bench kernels``: every backend of every kernel, timed in turn on this machine."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from core.cli.environment import physical_cores
from core.cli.output import table


def _most() -> int:
    """Every core, as far as numba was given threads when the program started."""
    return min(physical_cores(), int(os.environ.get("NUMBA_NUM_THREADS") or physical_cores()))


def bench_kernels(
    only: Annotated[list[str] | None, typer.Option("--only", help="A kernel's name; repeatable.")] = None,
    threads: Annotated[int, typer.Option(help="Threads; 0 takes every core.")] = 0,
    repeats: Annotated[int, typer.Option(help="Timed runs of each; the median counts.")] = 5,
    points: Annotated[int, typer.Option(help="Points of the hash grid.")] = 131_072,
    rays: Annotated[int, typer.Option(help="Rays of marching and compositing.")] = 4096,
    peer: Annotated[
        list[str] | None, typer.Option(help="KERNEL=MODULE, a module of yours to time beside them; repeatable.")
    ] = None,
) -> list[dict[str, object]]:
    """Time forward and backward of each backend against plain PyTorch."""
    from core.kernels.bench import bench

    rows = bench(only or None, threads or _most(), repeats, points, rays, peers=peer or ())
    shown = [[str(r[k]) for k in ("kernel", "backend", "shape", "ms", "ratio", "device")] for r in rows]
    print(table(shown, ["kernel", "backend", "shape", "ms", "times plain PyTorch", "device"]))
    return rows
