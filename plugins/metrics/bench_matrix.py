"""``launch.py bench matrix``: every geometry under every guidance, each cell lifted, judged, exported and shown.

A cell counts when the judge believes in the prompt's kind more than before the first step, and a GLB was written.
Guidances that start from a picture are given one of an unseen object of the prompt's kind and colour.
"""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml
from PIL import Image

from core.config.loading import load_job
from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError, did_you_mean
from core.generative.sheet import sample_sheet
from core.job import run_job
from core.run import peak_memory
from core.stages import build_task
from plugins.metrics.eval_text import turntable
from plugins.metrics.folders import fresh, machine, save_views
from plugins.metrics.given import ELEVATION, Given

SCALE = 20_000.0
"""How much larger score distillation's loss is than the mean squared difference of pictures, as presets weigh them."""
SEED, AZIMUTH = 2_000_201, 35.0
"""Of the object whose picture is given, and the side (degrees) it is seen from."""


def bench(
    prompt: Annotated[str, typer.Option(help="What every cell lifts; the judge must know its kind.")] = "a red mug",
    steps: Annotated[int, typer.Option(help="Steps of each cell.")] = 100,
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
    picture = _picture(judge.classifier, prompt).write(folder / "given")
    rows: list[dict[str, Any]] = []
    for shape, preset in geometries.items():
        for led, overlay in guidances.items():
            job = _job(preset, overlay, steps, picture)
            found = _cell(job, prompt, option or [], folder / f"{shape}-{led}", judge)
            rows.append(row := {"geometry": shape, "guidance": led} | found)
            print(_line(row), flush=True)
            write_page(folder, rows, prompt, steps)  # what is done stays, whatever comes
    print(f"{sum(r['passed'] for r in rows)} of {len(rows)} cells pass; {folder / 'index.html'}; {machine()}")
    return {"rows": rows, "prompt": prompt, "steps": steps, "machine": machine()}


def _chosen(known: dict[str, Any], names: list[str] | None, what: str) -> dict[str, Any]:
    for name in names or []:
        if name not in known:
            raise UserError(f"the matrix has no {what} '{name}'.{did_you_mean(name, known)}")
    return {name: known[name] for name in names or known}


def _picture(classifier: Any, prompt: str) -> Given:
    """An unseen object of the kind, and the colour, that the prompt names."""
    category, color = classifier.expected(prompt)
    words = classifier.categories[category], classifier.colors[color] if color is not None else "natural"
    views = get_registry().find("data", "procedural-views").load()
    made = views(views.Config(category=words[0], color=words[1], seed=SEED), Context())
    return Given(f"{words[1]} {words[0]}", AZIMUTH, made)


def _job(preset: str | dict[str, Any], overlay: dict[str, Any], steps: int, picture: Path) -> dict[str, Any]:
    """The cell's job: the preset under the guidance, at the size of loss that the preset's regularisers expect."""
    preset = {"extends": preset} if isinstance(preset, str) else preset
    options = load_job(preset, [], get_registry(), {"prompt": "x"}).resolved
    of_pictures, splats = bool(options.get("losses", {}).get("image")), options["geometry"]["type"] == "splats"
    losses, guidance = dict(overlay["losses"]), overlay["guidance"]
    factor = 1.0
    if guidance and of_pictures:
        guidance, factor = [g | {"weight": g.get("weight", 1) / SCALE} for g in guidance], 1 / SCALE
    if not guidance and not of_pictures:
        factor = SCALE
    losses = {name: weight and weight * factor for name, weight in losses.items()}
    made = {"losses": losses, "guidance": guidance, "steps": steps, "preview_every": 0, "checkpoint_every": 0}
    if overlay.get("from_picture"):
        told = {"elevation": ELEVATION, "azimuth": AZIMUTH, "frame": None}
        made |= {"image": str(picture.absolute()), "picture": told}
    kept = {name: value for name, value in overlay.items() if name != "from_picture"}
    glb = {"type": "glb", "resolution": 64, "faces": 2000, "texture": 256}
    return kept | made | preset | {"export": [glb, *(["splat-ply"] if splats else [])]}


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
    save_views(rgb[1::2], folder / "views.png")
    files = sorted(p.name for p in (folder / "assets").iterdir())
    passed = after > before and any(name.endswith(".glb") for name in files)
    return {
        "before": before, "after": after, "seconds": seconds, "peak_memory_mib": peak_memory(torch.device("cpu")),
        "files": files, "passed": passed, "folder": folder.name,
    }  # fmt: skip


@torch.no_grad()
def _seen(task: Any, prompt: str, judge: Any) -> tuple[float, torch.Tensor]:
    """The judge's mean probability of the prompt's kind, and the eight views."""
    render = task.eval().parts["renderer"](turntable(64))
    return judge.measure(render, prompt)["category_probability"], render.rgb


def _line(row: dict[str, Any]) -> str:
    mark = "ok" if row["passed"] else "--"
    return (
        f"{mark}  {row['geometry']:<12}{row['guidance']:<22}{row['before']:.3f} -> {row['after']:.3f}"
        f"{row['seconds']:8.0f} s{row['peak_memory_mib']:7.0f} MiB"
    )


def write_page(folder: Path, rows: list[dict[str, Any]], prompt: str, steps: int) -> None:
    """``index.html``, ``matrix.md`` and ``matrix.png``: a row for each geometry, a column for each guidance."""
    geometries, guidances = (list(dict.fromkeys(r[k] for r in rows)) for k in ("geometry", "guidance"))
    cells = {(r["geometry"], r["guidance"]): r for r in rows}
    title = f"{prompt}: every geometry under every guidance, {steps} steps"
    lines = [f"# {title}\n\n![one picture of each cell](matrix.png)\n\n"]
    lines.append(f"| | {' | '.join(guidances)} |\n|---|{'---|' * len(guidances)}\n")
    table = []
    for shape in geometries:
        shown = [cells.get((shape, led)) for led in guidances]
        lines.append(f"| {shape} | " + " | ".join(_words(c) if c else "" for c in shown) + " |\n")
        table.append(f"<tr><th>{html.escape(shape)}</th>{''.join(_square(c) for c in shown)}</tr>")
    told = f"{sum(r['passed'] for r in rows)} of {len(rows)} cells improve and export a GLB. Score: the judge's mean "
    told += f"probability of the kind, before and after. {machine()}"
    (folder / "matrix.md").write_text("".join(lines) + f"\n{told}\n", encoding="utf-8")
    _sheet(folder, rows, title, len(guidances))
    head = "".join(f"<th>{html.escape(led)}</th>" for led in guidances)
    style = "body{font:14px sans-serif;margin:2em}td,th{padding:8px;text-align:left}img{width:300px}.failed{color:#b00}"
    (folder / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        f"<h1>{html.escape(title)}</h1><table><tr><th></th>{head}</tr>{''.join(table)}</table>"
        f"<p>{html.escape(told)}</p>",
        encoding="utf-8",
    )


def _sheet(folder: Path, rows: list[dict[str, Any]], title: str, columns: int) -> None:
    """One picture of each cell, from the front and a little to the side."""
    views = [Image.open(folder / row["folder"] / "views.png") for row in rows]
    pictures = [v.crop((0, 0, v.height, v.height)).resize((160, 160), Image.Resampling.LANCZOS) for v in views]
    labels = [f"{row['guidance']} {row['after']:.2f}" for row in rows]
    labels[::columns] = [f"{r['geometry']}: {name}" for r, name in zip(rows[::columns], labels[::columns], strict=True)]
    sample_sheet(pictures, title, labels, columns).quantize(128).save(folder / "matrix.png", optimize=True)


def _square(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "<td></td>"
    mark = "" if cell["passed"] else ' class="failed"'
    return f'<td{mark}><img src="{cell["folder"]}/views.png" alt=""><br>{_words(cell)}</td>'


def _words(cell: dict[str, Any]) -> str:
    return f"{cell['before']:.2f} → {cell['after']:.2f}, {cell['seconds']:.0f} s, {cell['peak_memory_mib']:.0f} MiB"
