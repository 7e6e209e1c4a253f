"""``launch.py eval ib-planes RUN``: views that a fitted run never saw, from so many clean pictures, beside baselines.

Of each unseen object some views are given, the others of its set are denoised beside them, and one camera is no part of
the set: only there a scene shows itself. A run trained with ``leave_out=false`` is the ablation (``--against``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.contracts import Context
from core.errors import UserError
from core.generative import view_scores as vs
from core.generative.through_rendering import side_by_side
from plugins.ib_planes.ib_planes import IBPlanes

_BATCH = 8


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    against: Annotated[Path | None, typer.Option(help="Another run, for a second table.")] = None,
    objects: Annotated[int, typer.Option(help="Unseen objects.")] = 24,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    sheet: Annotated[Path | None, typer.Option(help="A picture of true and drawn views.")] = None,
) -> dict[str, Any]:
    """PSNR of views from cameras outside the set, and of the denoised ones, from 3, 2 and 1 clean pictures."""
    if objects < 2:
        raise UserError("--objects: two at least")
    table: dict[str, Any] = {}
    for folder in (run, against):
        if folder is not None:
            table[str(folder)] = one_run(vs.opened(folder, IBPlanes), objects, steps, sheet if folder is run else None)
    table["references"] = references(vs.opened(run, IBPlanes), objects)
    print("references at the unseen camera: " + ", ".join(f"{k} {v:.2f}" for k, v in table["references"].items()))
    return table


def unseen(task: Any, objects: int) -> tuple[Tensor, Any]:
    """Pictures [B, V, 3, S, S] and cameras of objects that no training shows; the last view is the unseen one."""
    options = task.data.options
    changed = options.model_copy(update={"images": objects * options.views, "split": "test"})
    own = task.data
    task.data = type(own)(changed, Context())
    try:
        chosen = torch.arange(task.options.views + 1).expand(objects, -1)
        return task.views(torch.arange(objects), chosen)
    finally:
        task.data = own


@torch.no_grad()
def one_run(task: Any, objects: int, steps: int, sheet: Path | None) -> dict[str, Any]:
    """Rows by the number of clean views; printed."""
    rgb, cameras = unseen(task, objects)
    total, shown = task.options.views, []
    rows: dict[Any, Any] = {}
    print(f"{'clean views':<14}{'unseen camera':>15}{'denoised views':>16}{'spread, given':>15}{'spread, else':>14}")
    for clean in range(min(total - 1, 3), 0, -1):
        drawn = [draw_beside(task, rgb, cameras, clean, steps, seed) for seed in (0, 1)]
        every = drawn[0]
        row = {
            "unseen": vs.psnr(every[:, total:], rgb[:, total:]),
            "denoised": vs.psnr(every[:, clean:total], rgb[:, clean:total]),
            "spread_given": vs.spread([d[:, :clean] for d in drawn]),
            "spread_else": vs.spread([d[:, clean:] for d in drawn]),
        }
        rows[clean] = row
        decibels = f"{row['unseen']:>15.2f}{row['denoised']:>16.2f}"
        print(f"{clean:<14}{decibels}{row['spread_given']:>15.4f}{row['spread_else']:>14.4f}")
        shown.append(every[:4])
    if sheet is not None:
        write_sheet([rgb[:4], *shown], sheet)
    return rows


def draw_beside(task: Any, rgb: Tensor, cameras: Any, clean: int, steps: int, seed: int) -> Tensor:
    """[B, V + 1, 3, S, S] all views of scenes that were drawn from the first ``clean`` views of each."""
    total, made = task.options.views, []
    generator, look = torch.Generator().manual_seed(seed), task.average.model["look"]
    for first in range(0, len(rgb), _BATCH):
        some = rgb[first : first + _BATCH]
        own = cameras[slice(first * rgb.shape[1], (first + len(some)) * rgb.shape[1])]
        place = torch.arange(len(own)).view(len(some), -1)
        given, free = own[place[:, :clean].flatten()], own[place[:, clean:total].flatten()]
        start = torch.randn(some[:, clean:total].shape, generator=generator).to(some)
        codes = task.walk(start, free, (some[:, :clean], given), steps=steps)
        every = side_by_side([own], len(some))
        made.append(task.pictures(look, codes, every))
    return torch.cat(made)


@torch.no_grad()
def references(task: Any, objects: int) -> dict[str, float]:
    """PSNR at the unseen camera of what needs no model: the first given picture, and the training pictures' mean."""
    rgb, _ = unseen(task, objects)
    truth = rgb[:, -1:]
    drawn, _ = task.drawn_views(256, 1, torch.Generator().manual_seed(0))
    return {"given picture": vs.psnr(rgb[:, :1], truth), "mean picture": vs.psnr(drawn.mean(0)[None], truth)}


def write_sheet(rows: list[Tensor], path: Path) -> None:
    """Of each object one row of pictures: its true views, then those drawn from 3, 2 and 1 of them."""
    from PIL import Image

    picture = torch.cat([torch.cat([torch.cat(list(views), 2) for views in row], 1) for row in rows], 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = ((picture / 2 + 0.5).clamp(0, 1) * 255).byte().movedim(0, 2).cpu().numpy()
    image = Image.fromarray(pixels)
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)
