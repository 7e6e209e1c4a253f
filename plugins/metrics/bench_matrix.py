"""``launch.py bench matrix``: every geometry under every guidance, each cell lifted, judged, exported and shown.

A cell counts when the judge believes in the prompt's kind more than before the first step, and a GLB was written.
"""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml

from core.config.loading import load_job
from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError, did_you_mean
from core.job import run_job
from core.run import peak_memory
from core.stages import build_task
from plugins.metrics.eval_text import turntable
from plugins.metrics.folders import fresh, machine, save_views

SCALE = 20_000.0
"""How much larger score distillation's loss is than the mean squared difference of pictures, as presets weigh them."""


def bench(
    prompt: Annotated[str, typer.Option(help="What every cell lifts; the judge must know its kind.")] = "a red mug",
    steps: Annotated[int, typer.Option(help="Steps of each cell.")] = 120,
    geometry: Annotated[list[str] | None, typer.Option(help="A geometry; repeatable. Default: all.")] = None,
    guidance: Annotated[list[str] | None, typer.Option(help="A guidance; repeatable. Default: all.")] = None,
    output: Annotated[Path, typer.Option(help="Folder that receives the page and the runs.")] = Path("runs/matrix"),
    option: Annotated[list[str] | None, typer.Option(help="An override of each job, key=value; repeatable.")] = None,
) -> dict[str, Any]:
    """Picture, score before and after, time and memory of every geometry under every guidance."""
    given = yaml.safe_load(Path(__file__).with_name("matrix.yaml").read_text(encoding="utf-8"))
    geometries = _chosen(given["geometries"], geometry, "geometry")
    guidances = _chosen(given["guidances"], guidance, "guidance")
    judge = get_registry().find("metric", "judge").load()
    judge = judge(judge.Config(), Context())
    if judge.classifier.expected(prompt)[0] is None:
        raise UserError(f"the judge knows no kind of object in '{prompt}', so no cell could be scored")
    folder = fresh(output)
    rows: list[dict[str, Any]] = []
    for shape, preset in geometries.items():
        for led, overlay in guidances.items():
            found = _cell(_job(preset, overlay, steps), prompt, option or [], folder / f"{shape}-{led}", judge)
            rows.append(row := {"geometry": shape, "guidance": led} | found)
            print(_line(row), flush=True)
    write_page(folder, rows, prompt, steps)
    print(f"{sum(r['passed'] for r in rows)} of {len(rows)} cells pass; {folder / 'index.html'}; {machine()}")
    return {"rows": rows, "prompt": prompt, "steps": steps, "machine": machine()}


def _chosen(known: dict[str, Any], names: list[str] | None, what: str) -> dict[str, Any]:
    for name in names or []:
        if name not in known:
            raise UserError(f"the matrix has no {what} '{name}'.{did_you_mean(name, known)}")
    return {name: known[name] for name in names or known}


def _job(preset: str, overlay: dict[str, Any], steps: int) -> dict[str, Any]:
    """The cell's job: the preset under the guidance, at the size of loss that the preset's regularisers expect."""
    of_pictures = bool(load_job(preset, [], get_registry(), {"prompt": "x"}).resolved.get("losses", {}).get("image"))
    losses, guidance = dict(overlay["losses"]), overlay["guidance"]
    if guidance and of_pictures:
        guidance = [g | {"weight": 1 / SCALE} for g in guidance]
    if not guidance and not of_pictures:
        losses = {name: weight * SCALE for name, weight in losses.items()}
    made = {"losses": losses, "guidance": guidance, "steps": steps, "preview_every": 0, "checkpoint_every": 0}
    return overlay | made | {"extends": preset, "export": ["glb"]}


def _cell(job: dict[str, Any], prompt: str, options: list[str], folder: Path, judge: Any) -> dict[str, Any]:
    registry = get_registry()
    checked = load_job(job, options, registry, {"prompt": prompt})
    before = _seen(build_task(checked, registry, 0, torch.device("cpu")), prompt, judge)[0]
    start = time.perf_counter()
    run = run_job(checked, registry, folder=folder, quiet=True)
    if run.state == "stopped":
        raise KeyboardInterrupt
    seconds = time.perf_counter() - start
    after, rgb = _seen(run.task(), prompt, judge)
    save_views(rgb[::2], folder / "views.png")
    files = sorted(p.name for p in (folder / "assets").iterdir())
    passed = after > before and any(name.endswith(".glb") for name in files)
    return {
        "before": before, "after": after, "seconds": seconds, "peak_memory_mib": peak_memory(torch.device("cpu")),
        "files": files, "passed": passed, "folder": folder.name,
    }  # fmt: skip


@torch.no_grad()
def _seen(task: Any, prompt: str, judge: Any) -> tuple[float, torch.Tensor]:
    """The judge's mean probability of the prompt's kind, and the eight views."""
    render = task.eval().parts["renderer"](turntable(128))
    return judge.measure(render, prompt)["category_probability"], render.rgb


def _line(row: dict[str, Any]) -> str:
    mark = "ok" if row["passed"] else "--"
    return (
        f"{mark}  {row['geometry']:<12}{row['guidance']:<22}{row['before']:.3f} -> {row['after']:.3f}"
        f"{row['seconds']:8.0f} s{row['peak_memory_mib']:7.0f} MiB"
    )


def write_page(folder: Path, rows: list[dict[str, Any]], prompt: str, steps: int) -> None:
    """``index.html`` and ``matrix.md``: a row for each geometry, a column for each guidance."""
    geometries, guidances = (list(dict.fromkeys(r[k] for r in rows)) for k in ("geometry", "guidance"))
    cells = {(r["geometry"], r["guidance"]): r for r in rows}
    title = f"{prompt}: every geometry under every guidance, {steps} steps"
    lines = [f"# {title}\n\n| | {' | '.join(guidances)} |\n|---|{'---|' * len(guidances)}\n"]
    table = []
    for shape in geometries:
        shown = [cells.get((shape, led)) for led in guidances]
        lines.append(f"| {shape} | " + " | ".join(_words(c) if c else "" for c in shown) + " |\n")
        table.append(f"<tr><th>{html.escape(shape)}</th>{''.join(_square(c) for c in shown)}</tr>")
    (folder / "matrix.md").write_text("".join(lines) + f"\n{machine()}\n", encoding="utf-8")
    head = "".join(f"<th>{html.escape(led)}</th>" for led in guidances)
    style = "body{font:14px sans-serif;margin:2em}td,th{padding:8px;text-align:left}img{width:300px}.failed{color:#b00}"
    (folder / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        f"<h1>{html.escape(title)}</h1><table><tr><th></th>{head}</tr>{''.join(table)}</table>"
        f"<p>Score: the judge's probability of the kind, before and after. {html.escape(machine())}</p>",
        encoding="utf-8",
    )


def _square(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "<td></td>"
    mark = "" if cell["passed"] else ' class="failed"'
    return f'<td{mark}><img src="{cell["folder"]}/views.png" alt=""><br>{_words(cell)}</td>'


def _words(cell: dict[str, Any]) -> str:
    return f"{cell['before']:.2f} → {cell['after']:.2f}, {cell['seconds']:.0f} s, {cell['peak_memory_mib']:.0f} MiB"
