"""``launch.py eval text``: lift a fixed list of prompts, look at each from eight sides, and count.

Category and colour are judged by a classifier trained apart from the priors; R-precision by the family's CLIP;
Janus is a front seen from behind. Seconds are wall-clock of the whole job without exports, on the machine named.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from core.config.loading import load_job
from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError
from core.job import run_job
from core.run import peak_memory
from core.types import Cameras, Render
from plugins.metrics.folders import fresh, machine, read_yaml, save_views

HELD = "held_out"
COLUMNS = ("category", "color", "r_precision", "janus", "seconds")


def evaluate(
    config: Annotated[str, typer.Option(help="The preset or job file that lifts.")] = "text-to-3d",
    prompts: Annotated[Path | None, typer.Option(help="A YAML file with lists `seen` and `held_out`.")] = None,
    limit: Annotated[int, typer.Option(help="Prompts of each list; 0 takes all.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder that receives the runs.")] = Path("runs/eval-text"),
    option: Annotated[list[str] | None, typer.Option(help="An override of the job, key=value; repeatable.")] = None,
) -> dict[str, Any]:
    """Category and colour accuracy, R-precision, Janus, time and memory over at least 20 prompts."""
    lists = read_prompts(prompts or Path(__file__).with_name("prompts.yaml"))
    registry = get_registry()
    metrics = [registry.find("metric", name).load() for name in ("judge", "clip")]
    built = [m(m.Config(), Context()) for m in metrics]
    rows: list[dict[str, Any]] = []
    print(f"{'prompt':<28}" + "".join(f"{c:>12}" for c in COLUMNS))
    for group, texts in lists.items():
        for text in texts[: limit or None]:
            row = {"prompt": text, "group": group} | measure(text, config, output, option or [], built)
            rows.append(row)
            print(f"{text:<28}" + "".join(f"{row.get(c, math.nan):>12.2f}" for c in COLUMNS), flush=True)
    totals = {name: total(rows, group) for name, group in (("all", None), (HELD, HELD))}
    true = [{"prompt": r["prompt"], "group": r["group"]} | true_renders(r["prompt"], built) for r in rows]
    totals["true renders"] = total(true, None)
    for name, found in totals.items():
        print(f"{name:<28}" + "".join(f"{found.get(c, math.nan):>12.2f}" for c in COLUMNS))
    memory = peak_memory(torch.device("cpu"))
    print(f"peak memory {memory} MiB; {machine()}")
    return {"rows": rows, "totals": totals, "peak_memory_mib": memory, "machine": machine(), "config": config}


def read_prompts(file: Path) -> dict[str, list[str]]:
    """Lists of prompts by name.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    lists = read_yaml(file)
    if not isinstance(lists, dict) or not all(isinstance(texts, list) for texts in lists.values()):
        raise UserError(f"{file} must hold lists of prompts by name, such as seen: [a red mug]")
    return lists


def measure(text: str, config: str, output: Path, options: list[str], metrics: list[Any]) -> dict[str, float]:
    """Lift one prompt and measure a turntable of eight views, 15 degrees above the horizon."""
    overrides = ["export=[]", "preview_every=0", "checkpoint_every=0", *options]
    registry = get_registry()
    start = time.perf_counter()
    job = load_job(config, overrides, registry, {"prompt": text})
    folder = output / "".join(c if c.isalnum() else "-" for c in text)
    run = run_job(job, registry, folder=fresh(folder), quiet=True)
    if run.state == "stopped":  # by Ctrl-C: half a lift must not be measured, nor the next one begun
        raise KeyboardInterrupt
    seconds = time.perf_counter() - start
    task: Any = run.task()
    cameras = turntable(128)
    with torch.no_grad():
        renders = task.eval().parts["renderer"](cameras)
    save_views(renders.rgb, folder / "turntable.png")
    found = {"seconds": seconds}
    for metric in metrics:
        found |= metric.measure(renders, text)
    return found


def true_renders(text: str, metrics: list[Any], count: int = 4) -> dict[str, float]:
    """What the metrics say of the real thing: unseen procedural objects of the prompt's kind and colour, same views.

    The mean over ``count`` objects is what a perfect lift would get.
    """
    source = get_registry().find("data", "procedural").load()
    judge = next(m.classifier for m in metrics if hasattr(m, "classifier"))
    category, color = judge.expected(text)
    if category is None:
        return {}
    cameras = turntable(64)
    named = None if color is None else judge.colors[color]
    pictures = source.pictures_of(judge.categories[category], named, cameras, count)
    found: dict[str, list[float]] = {}
    for rgb in pictures:
        render = Render(rgb=rgb, opacity=torch.ones_like(rgb[..., :1]), cameras=cameras)
        for metric in metrics:
            for name, value in metric.measure(render, text).items():
                found.setdefault(name, []).append(value)
    return {name: sum(values) / count for name, values in found.items()}


def turntable(size: int) -> Cameras:
    """The eight views that are judged: 45 degrees apart, 15 degrees above the horizon."""
    return Cameras.turntable(torch.arange(8) * math.pi / 4, math.radians(15), size)


def total(rows: list[dict[str, Any]], group: str | None) -> dict[str, float]:
    """Means over the rows of a group (all where None); a prompt that names no colour does not count for colour."""
    chosen = [r for r in rows if group in (None, r["group"])]
    out: dict[str, float] = {"prompts": float(len(chosen))}
    for column in COLUMNS:
        values = [r[column] for r in chosen if column in r]
        out[column] = sum(values) / len(values) if values else math.nan
    return out
