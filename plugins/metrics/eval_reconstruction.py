"""``launch.py eval reconstruction``: fit each geometry to posed pictures of known objects, without any prior.

Held-out pictures give the PSNR, the exported mesh the Chamfer distance to the true surface. A geometry that cannot be
fitted to pictures cannot be lifted either: what fails here is not the prior's fault.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import trimesh
import typer
from torch import Tensor

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError, did_you_mean
from core.job import run_job
from core.meshing.compare import chamfer, f_scores
from core.meshing.sampling import sample_surface
from core.run import peak_memory
from core.types import Mesh
from plugins.metrics.folders import fresh, machine, read_yaml, save_views

COLUMNS = {
    "psnr": ".2f",
    "chamfer_percent": ".2f",
    "f_score": ".3f",
    "seconds": ".0f",
    "cpu_seconds": ".0f",
    "peak_memory_mib": ".0f",
}
POINTS = 20_000


def evaluate(
    geometry: Annotated[
        list[str] | None, typer.Option(help="A geometry; repeatable. Default: all that can run.")
    ] = None,
    objects: Annotated[int, typer.Option(help="How many objects; 0 takes all.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of each fit; 0 takes each geometry's own.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width of the pictures.")] = 128,
    output: Annotated[Path, typer.Option(help="Folder that receives the runs.")] = Path("runs/eval-reconstruction"),
    option: Annotated[list[str] | None, typer.Option(help="An override of the job, key=value; repeatable.")] = None,
    settings: Annotated[Path | None, typer.Option(help="A YAML file in the place of the shipped one.")] = None,
) -> dict[str, Any]:
    """PSNR on held-out views, Chamfer distance of the exported mesh, time and memory, per geometry and object."""
    given = read_settings(settings or Path(__file__).with_name("reconstruction.yaml"))
    names = chosen_geometries(given["geometries"], geometry)
    overrides = [*([f"steps={steps}"] if steps else []), f"data.size={size}", *(option or [])]
    rows: list[dict[str, Any]] = []
    print(f"{'geometry':<14}{'object':<20}" + "".join(f"{c:>17}" for c in COLUMNS))
    for name in names:
        for what in given["objects"][: objects or None]:
            job = {**given["job"], **given["geometries"][name]}
            rows.append({"geometry": name} | measure(job, what, overrides, output / name))
            print_row(rows[-1], rows[-1]["object"])
        mine = [r for r in rows if r["geometry"] == name]
        print_row({"geometry": name} | mean(mine), f"mean of {len(mine)}")
    print(machine())
    totals = {name: mean([r for r in rows if r["geometry"] == name]) for name in names}
    return {"rows": rows, "totals": totals, "machine": machine(), "size": size}


def print_row(row: dict[str, Any], label: str) -> None:
    """One line of the table."""
    cells = "".join(f"{row[c]:>17{f}}" for c, f in COLUMNS.items())
    print(f"{row['geometry']:<14}{label:<20}{cells}", flush=True)


def read_settings(file: Path) -> dict[str, Any]:
    """``objects``, ``job`` and ``geometries`` of a YAML file.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    given = read_yaml(file)
    wanted = {"objects": list, "job": dict, "geometries": dict}
    if not isinstance(given, dict) or any(not isinstance(given.get(k), t) for k, t in wanted.items()):
        raise UserError(f"{file} must hold a list 'objects' and mappings 'job' and 'geometries'")
    return given


def chosen_geometries(known: dict[str, Any], asked: list[str] | None) -> list[str]:
    """The geometries asked for; by default those whose components are all there.

    Raises:
        UserError: one that the settings do not know.
    """
    for name in asked or []:
        if name not in known:
            raise UserError(f"--geometry: there are no settings for '{name}'.{did_you_mean(name, known)}")
    if asked:
        return asked
    registry = get_registry()
    there = {kind: {e.name for e in registry.entries(kind)} for kind in ("geometry", "renderer")}

    def runs(job: dict[str, Any]) -> bool:
        parts = [(k, job[k] if isinstance(job[k], str) else job[k].get("type")) for k in there]
        return all(name in there[kind] for kind, name in parts)

    return [name for name, job in known.items() if runs(job)]


def measure(job: dict[str, Any], what: dict[str, Any], overrides: list[str], folder: Path) -> dict[str, Any]:
    """Fit one geometry to one object and measure what came out.

    Args:
        job: its configuration.  what: category, colour and seed.
        overrides: ``key=value``.  folder: receives the run.
    """
    registry = get_registry()
    label = f"{what.get('color') or ''} {what['category']}".strip()
    told = [f"data.{k}={v}" for k, v in what.items()]
    checked = load_job({"name": "reconstruct", "prompt": label, **job}, [*told, *overrides], registry)
    forget_peak()
    start, busy = time.perf_counter(), time.process_time()
    run = run_job(checked, registry, folder=fresh(folder / label.replace(" ", "-")), quiet=True)
    if run.state == "stopped":  # by Ctrl-C
        raise KeyboardInterrupt
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}
    task: Any = run.task().eval()
    peak = peak_now()
    found = held_out(task, run.folder) | surface_error(task, run.folder)
    return {"object": label, **found, **spent, "peak_memory_mib": peak}


@torch.no_grad()
def held_out(task: Any, folder: Path) -> dict[str, float]:
    """PSNR in dB over the held-out pictures (of the mean squared error of all); a sheet shows them beside the truth."""
    cameras, (truth, _) = task.data.cameras(held_out=True).to(task.context.device), task.data.pictures(held_out=True)
    seen = torch.cat([task.parts["renderer"](cameras[k : k + 1]).rgb for k in range(len(cameras))]).clamp(0, 1).cpu()
    save_views(torch.cat([truth, seen], 1)[:: max(1, len(seen) // 6)], folder / "held-out.png")
    return {"psnr": psnr(seen, truth)}


def psnr(seen: Tensor, truth: Tensor) -> float:
    """Peak signal to noise in dB of pictures in [0, 1]."""
    return -10 * math.log10(max(float((seen - truth).square().mean()), 1e-10))


def surface_error(task: Any, folder: Path) -> dict[str, float]:
    """Chamfer distance of the exported mesh, as a percentage of the true bounding box's diagonal; F-score at 1 % of it.

    Where no mesh could be exported the distance is infinite.
    """
    points, _, _ = task.data.object.surface(POINTS)
    truth = torch.from_numpy(points).float()
    diagonal = float((truth.amax(0) - truth.amin(0)).norm())
    registry = get_registry()
    exporter = registry.find("exporter", "ply").load()
    files = list(exporter(exporter.Config(), task.context).export(task.scene(), folder / "assets"))
    if not files:
        return {"chamfer_percent": math.inf, "f_score": 0.0}
    loaded: Any = trimesh.load(files[0], force="mesh", process=False)
    mesh = Mesh(torch.as_tensor(loaded.vertices).float(), torch.as_tensor(loaded.faces).long())
    found = sample_surface(mesh, POINTS, torch.Generator().manual_seed(0)).positions
    percent = 100 * float(chamfer(found, truth)) / diagonal
    return {"chamfer_percent": percent, "f_score": f_scores(found, truth, [0.01 * diagonal])[0]}


def mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means of the columns over rows; the peak of memory is the largest."""
    out = {c: sum(r[c] for r in rows) / len(rows) for c in COLUMNS}
    return out | {"peak_memory_mib": max(r["peak_memory_mib"] for r in rows)}


def forget_peak() -> None:
    """Begin to watch memory anew, where the system can (Linux); elsewhere peaks are those since the start."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_now() -> float:
    """Peak memory of the process in MiB since :func:`forget_peak`."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return peak_memory(torch.device("cpu")) or math.nan
