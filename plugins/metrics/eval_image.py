"""``launch.py eval image``: unseen objects from one picture each, by every way there is, in one table.

Views as in SyncDreamer's protocol (Liu et al. 2024, sec. 4.1): sixteen at equal azimuths, here at the given
picture's own elevation. Geometry against the true surface: Chamfer distance and volume IoU, F-scores at 1 and 2 % of
the diagonal.
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
from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError
from core.job import run_job
from core.meshing.compare import chamfer, f_scores, volume_iou
from core.meshing.sampling import sample_surface
from core.types import Mesh
from plugins.metrics.eval_reconstruction import POINTS, forget_peak, peak_now, psnr
from plugins.metrics.folders import fresh, machine, read_yaml, save_grid
from plugins.metrics.given import ELEVATION, Given, given_objects

TURNS = [22.5 * k for k in range(16)]
SIZE = 128
COLUMNS = {
    "psnr": ".2f", "ssim": ".3f", "clip_distance": ".3f", "mask_iou": ".3f", "input_psnr": ".2f",
    "chamfer_percent": ".2f", "volume_iou": ".3f", "f_score_1": ".3f", "f_score_2": ".3f",
    "seconds": ".0f", "peak_memory_mib": ".0f",
}  # fmt: skip


def evaluate(
    way: Annotated[list[str] | None, typer.Option(help="A way of image.yaml, or a preset; repeatable.")] = None,
    run: Annotated[list[Path] | None, typer.Option(help="A fitted generator's run, one more way; repeatable.")] = None,
    objects: Annotated[int, typer.Option(help="How many objects; 0 takes all.")] = 0,
    given: Annotated[Path | None, typer.Option(help="A YAML file in the place of the shipped list.")] = None,
    output: Annotated[Path, typer.Option(help="Folder that receives the runs.")] = Path("runs/eval-image"),
    option: Annotated[list[str] | None, typer.Option(help="An override of the jobs, key=value; repeatable.")] = None,
) -> dict[str, Any]:
    """Novel-view PSNR, SSIM, CLIP distance and mask IoU, Chamfer, volume IoU, F-scores, time and memory."""
    ways: dict[str, Any] = read_yaml(given or Path(__file__).with_name("image.yaml")).get("ways", {})
    chosen = {name: ways.get(name, {"config": name}) for name in way or ways}
    kinds = None
    for folder in run or []:
        name, knows = generator_of(folder)
        chosen[name] = {"config": name, "options": [f"init.run={folder.resolve()}"]}
        kinds = knows if kinds is None or knows is None else kinds & knows
    asked = given_objects(given, objects, kinds)
    if not asked:
        raise UserError(
            f"no object that is asked for is of a kind that all runs know ({', '.join(sorted(kinds or []))})"
        )
    perceptual = _perceptual()
    rows: list[dict[str, Any]] = []
    print(f"{'way':<22}{'object':<18}" + "".join(f"{c:>16}" for c in COLUMNS))
    for name, what in chosen.items():
        sheet = []
        for one in asked:
            row, seen = measure(one, what, option or [], output / name, perceptual)
            rows.append({"way": name, "object": one.label, **row})
            sheet.append(seen)
            print_row(rows[-1])
        save_grid(sheet, output / f"{name}.png")
        print_row({"way": name, "object": f"mean of {len(sheet)}"} | mean([r for r in rows if r["way"] == name]))
    print(f"SSIM by scikit-image; clip_distance: 1 - cosine of the embedded CLIP (no LPIPS weights here); {machine()}")
    totals = {name: mean([r for r in rows if r["way"] == name]) for name in chosen}
    return {"rows": rows, "totals": totals, "machine": machine()}


def generator_of(folder: Path) -> tuple[str, set[str] | None]:
    """The name of a run's generator, which is that of the preset that starts from it, and the kinds of objects that it
    was fitted to (None: all).

    Raises:
        UserError: it is no run, or no preset makes an object of a picture by such a generator.
    """
    job = read_yaml(folder / "config.yaml")
    name, data = (job.get("task"), job.get("data") or {}) if isinstance(job, dict) else (None, {})
    try:
        lift = load_job(str(name), [f"init.run={folder}"], get_registry(), {"image": "any.png"}).resolved
    except UserError:
        lift = {}
    if not lift.get("init") or lift["data"]["type"] != "given-views":
        raise UserError(f"{folder} is a run of '{name}', and no preset makes an object of a picture by one")
    kinds = data.get("categories")
    return str(name), set(kinds) if kinds else None


def print_row(row: dict[str, Any]) -> None:
    """One line of the table."""
    cells = "".join(f"{row[c]:>16{f}}" for c, f in COLUMNS.items())
    print(f"{row['way']:<22}{row['object']:<18}{cells}", flush=True)


def mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means of the columns; the largest peak of memory."""
    out = {c: sum(r[c] for r in rows) / len(rows) for c in COLUMNS}
    return out | {"peak_memory_mib": max(r["peak_memory_mib"] for r in rows)}


def measure(
    one: Given, what: dict[str, Any], options: list[str], folder: Path, perceptual: Any
) -> tuple[dict[str, float], Tensor]:
    """Make one object in one way; the figures, and its views beside the true ones [V, 2S, S, 3].

    Args:
        what: ``config`` and ``options`` (a list of overrides) of the way.
    """
    picture = one.write(folder / "given")
    words = ["export=[]", "preview_every=0", "checkpoint_every=0", "picture.frame=null", *what.get("options", [])]
    told = {"elevation": ELEVATION, "azimuth": one.azimuth}
    extra = {"image": str(picture.absolute()), "picture": told}
    if what.get("caption"):
        extra["prompt"] = f"a {one.label}"
    registry = get_registry()
    job = load_job(what["config"], [*words, *options], registry, extra)
    forget_peak()
    start = time.perf_counter()
    run = run_job(job, registry, folder=fresh(folder / picture.stem), quiet=True)
    if run.state == "stopped":  # by Ctrl-C
        raise KeyboardInterrupt
    found: dict[str, float] = {"seconds": time.perf_counter() - start, "peak_memory_mib": peak_now()}
    task: Any = run.task().eval()
    pictures, seen = compare_views(task, one, perceptual)
    return found | pictures | compare_shapes(task, one, run.folder), seen


@torch.no_grad()
def compare_views(task: Any, one: Given, perceptual: Any) -> tuple[dict[str, float], Tensor]:
    """Figures of sixteen views, the first of which is the given one and counts for ``input_psnr`` alone."""
    from skimage.metrics import structural_similarity

    cameras, (truth, mask) = one.cameras(TURNS, SIZE).to(task.context.device), one.seen(TURNS, SIZE)
    renders = [task.parts["renderer"](cameras[k : k + 1]) for k in range(len(cameras))]
    rgb = torch.cat([r.rgb for r in renders]).clamp(0, 1).cpu()
    inside, true_inside = torch.cat([r.opacity for r in renders]).cpu() > 0.5, mask > 0.5
    union = (inside | true_inside)[1:].sum((1, 2, 3)).clamp(min=1)
    pairs = list(zip(rgb[1:].numpy(), truth[1:].numpy(), strict=True))
    return {
        "psnr": sum(psnr(a, b) for a, b in zip(rgb[1:], truth[1:], strict=True)) / (len(rgb) - 1),
        "ssim": sum(float(structural_similarity(a, b, channel_axis=-1, data_range=1.0)) for a, b in pairs) / len(pairs),
        "clip_distance": float(1 - (perceptual(rgb[1:]) * perceptual(truth[1:])).sum(-1).mean()),
        "mask_iou": float(((inside & true_inside)[1:].sum((1, 2, 3)) / union).mean()),
        "input_psnr": psnr(rgb[0], truth[0]),
    }, torch.cat([truth, rgb], 1)[::2]


def compare_shapes(task: Any, one: Given, folder: Path) -> dict[str, float]:
    """The exported mesh against the true object; an empty one is infinitely far."""
    points, _, _ = one.source.object.surface(POINTS)
    truth = torch.from_numpy(points).float()
    diagonal = float((truth.amax(0) - truth.amin(0)).norm())
    exporter = get_registry().find("exporter", "ply").load()
    files = list(exporter(exporter.Config(), task.context).export(task.scene(), folder / "assets"))
    if not files:
        return {"chamfer_percent": math.inf, "volume_iou": 0.0, "f_score_1": 0.0, "f_score_2": 0.0}
    loaded: Any = trimesh.load(files[0], force="mesh", process=False)
    mesh = Mesh(torch.as_tensor(loaded.vertices).float(), torch.as_tensor(loaded.faces).long())
    found = sample_surface(mesh, POINTS, torch.Generator().manual_seed(0)).positions
    near, wide = f_scores(found, truth, [0.01 * diagonal, 0.02 * diagonal])
    vertices, faces, _ = one.source.object.mesh(96)
    true_mesh = Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces.copy()).long())
    percent = 100 * float(chamfer(found, truth)) / diagonal
    iou = volume_iou(mesh, true_mesh)
    return {"chamfer_percent": percent, "volume_iou": iou, "f_score_1": near, "f_score_2": wide}


def _perceptual() -> Any:
    """[B, H, W, 3] pictures to unit vectors [B, D] by the metric ``clip``."""
    metric = get_registry().find("metric", "clip").load()
    clip = metric(metric.Config(), Context())
    return clip.embed_pictures
