"""``launch.py eval consistency``: do the views that a prior draws of one sentence belong to one object?

Four views, 90 degrees apart, are drawn by a multi-view prior, and by a prior that draws each view alone from the same
noises. Gaussians are fitted to each set with nothing but its pictures to lead them: what no single object can show from
all four sides at once is left over as error (cf. Shi et al. 2024, "MVDream", sec. 4.1, who compare generations only).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.config.loading import load_job
from core.contracts import Context
from core.diffusion.sampler import ddim
from core.discovery import get_registry
from core.job import run_job
from core.types import Cameras
from plugins.metrics.eval_reconstruction import psnr
from plugins.metrics.eval_text import read_prompts
from plugins.metrics.folders import fresh, machine, read_yaml, save_grid, save_views

ELEVATION = 15.0
VIEWS = 4


def evaluate(
    prior: Annotated[list[str] | None, typer.Option(help="A prior told texts; repeatable.")] = None,
    family: Annotated[str, typer.Option(help="The embedded family: a folder, or built-in.")] = "built-in",
    limit: Annotated[int, typer.Option(help="Prompts of each list of `eval text`; 0 takes all.")] = 5,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    scale: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 7.5,
    output: Annotated[Path, typer.Option(help="Folder that receives pictures and runs.")] = Path("runs/consistency"),
) -> dict[str, Any]:
    """PSNR between the views of a sentence and one set of Gaussians fitted to them, for each prior."""
    names = prior or ["embedded-multiview", "embedded"]
    lists = read_prompts(Path(__file__).with_name("prompts.yaml"))
    prompts = [p for listed in lists.values() for p in listed[: limit or None]]
    job = read_yaml(Path(__file__).with_name("consistency.yaml"))["job"]
    rows: list[dict[str, Any]] = []
    print(f"{'prompt':<28}" + "".join(f"{n:>22}" for n in names) + "   (dB)")
    priors = {name: _built(name, family) for name in names}
    for index, prompt in enumerate(prompts):
        row: dict[str, Any] = {"prompt": prompt}
        sheet = []
        for name, model in priors.items():
            drawn = draw(model, prompt, steps, scale, seed=index)
            folder = fresh(output / name / prompt.replace(" ", "-"))
            seen = fitted(job, prompt, drawn, folder)
            row[name] = sum(psnr(a, b) for a, b in zip(seen, drawn, strict=True)) / VIEWS
            sheet += [drawn, seen]
        save_grid(sheet, output / f"{prompt.replace(' ', '-')}.png")
        rows.append(row)
        print(f"{prompt:<28}" + "".join(f"{row[n]:>22.2f}" for n in names), flush=True)
    total = {name: sum(r[name] for r in rows) / len(rows) for name in names}
    print(f"{'mean of ' + str(len(rows)):<28}" + "".join(f"{total[n]:>22.2f}" for n in names))
    print(f"pictures above their fits in {output}; {machine()}")
    return {"rows": rows, "total": total, "machine": machine()}


def _built(name: str, family: str) -> Any:
    found = get_registry().find("prior", name).load()
    return found(found.Config(family=family), Context()).eval()


def cameras() -> Cameras:
    """Front, left, back and right."""
    turns = torch.arange(VIEWS) * (2 * math.pi / VIEWS)
    return Cameras.turntable(turns, math.radians(ELEVATION), 64)


@torch.no_grad()
def draw(model: Any, prompt: str, steps: int, scale: float, seed: int) -> Tensor:
    """[4, 64, 64, 3] the four views of a sentence."""
    around, texts = cameras(), [prompt] * VIEWS
    told = model.condition(texts, around)
    return ddim(model, told, model.opposite(told, [""] * VIEWS, around), scale, steps, seed).cpu()


def fitted(job: dict[str, Any], prompt: str, views: Tensor, folder: Path) -> Tensor:
    """[4, 64, 64, 3] what Gaussians show from the same cameras after they were fitted to ``views``."""
    given = folder / "given"
    for k, view in enumerate(views):
        save_views(view[None], given / f"{k}.png")
    placed = [{"file": f"{k}.png", "azimuth": 360 * k / VIEWS, "elevation": ELEVATION} for k in range(VIEWS)]
    (given / "cameras.json").write_text(json.dumps({"fov": 40, "distance": 3, "views": placed}), encoding="utf-8")
    registry = get_registry()
    checked = load_job({**job, "prompt": prompt, "image": str(given.absolute())}, [], registry)
    run = run_job(checked, registry, folder=folder / "run", quiet=True)
    if run.state == "stopped":  # by Ctrl-C
        raise KeyboardInterrupt
    task: Any = run.task().eval()
    with torch.no_grad():
        return task.parts["renderer"](cameras().to(task.context.device)).rgb.clamp(0, 1).cpu()  # type: ignore[no-any-return]
