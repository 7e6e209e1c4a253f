"""``launch.py eval viewset RUN``: views of unseen objects from 0 to 3 clean pictures, beside what needs no model.

A run trained with ``unseen=0`` is the ablation (``--against``): the same network, whose volume nobody looked at from
elsewhere. One step of sampling is a network that answers at once, without diffusion: the mean of all that may be.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.errors import UserError
from core.generative import view_scores as vs
from core.types import Cameras
from plugins.viewset.viewset import Viewset


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    against: Annotated[Path | None, typer.Option(help="A run with unseen=0, for the ablation.")] = None,
    objects: Annotated[int, typer.Option(help="Unseen objects.")] = 24,
    draws: Annotated[int, typer.Option(help="Samples of each object, for how far they differ.")] = 8,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    output: Annotated[Path, typer.Option(help="Folder that receives the picture.")] = Path("runs/eval-viewset"),
) -> dict[str, Any]:
    """PSNR and SSIM by the number of clean pictures, baselines, the ablation, and how far samples differ where."""
    if objects < 1 or draws < 2:
        raise UserError("--objects: one at least; --draws: two at least, for they are compared")
    task = vs.opened(run, Viewset)
    held = vs.held_out(task, objects)
    table: dict[str, Any] = {"views": {}, "baselines": vs.baselines(task, held)}
    seen = {clean: views_from(task, held, clean, steps) for clean in range(vs.GIVEN + 1)}
    for clean, views in seen.items():
        table["views"][f"{clean} clean"] = vs.scores(views, held.asked)
    table["views"]["1 clean, one step"] = vs.scores(views_from(task, held, 1, 1), held.asked)
    if against is not None:
        other = views_from(vs.opened(against, Viewset), held, 1, steps)
        table["views"]["1 clean, the other run"] = vs.scores(other, held.asked)
    table["draws"] = {"1 clean": differences(task, held, draws, steps)}
    for title, rows in table.items():
        vs.print_rows(rows, title)
    few = min(objects, 8)
    rows = [held.rgb[:few, 0], held.asked[:few, 0], *(seen[k][:few, 0] for k in (3, 2, 1, 0))]
    vs.write_sheet(rows, output / "viewset.png")
    print(f"\n{output / 'viewset.png'}: given, asked, and the asked view from 3, 2, 1 and 0 clean pictures")
    return table


@torch.no_grad()
def views_from(task: Viewset, held: vs.Held, clean: int, steps: int, seed: int = 0) -> Tensor:
    """[B, ASKED, 3, S, S] the asked views of scenes drawn from the first ``clean`` pictures of each object."""
    given = (held.rgb[:, :clean], held.camera(slice(clean))) if clean else None
    codes = task.draw(len(held.rgb), given, torch.Generator().manual_seed(seed), steps)
    return vs.shown(task, codes, held.camera(slice(vs.GIVEN, None)))


@torch.no_grad()
def differences(task: Viewset, held: vs.Held, draws: int, steps: int) -> dict[str, float]:
    """How far samples from one picture differ seen from its side and from the opposite one, and whether the best of
    them is nearer to the truth than they are on average."""
    firsts = held.camera(slice(1))
    backs = Cameras.orbit(
        firsts.azimuth + math.pi, firsts.elevation, firsts.distance, firsts.fov_y, task.size, task.size
    )
    front, back, error = [], [], []
    for seed in range(draws):
        codes = task.draw(len(held.rgb), (held.rgb[:, :1], firsts), torch.Generator().manual_seed(seed), steps)
        front.append(vs.shown(task, codes, firsts)[:, 0])
        back.append(vs.shown(task, codes, backs)[:, 0])
        asked = vs.shown(task, codes, held.camera(slice(vs.GIVEN, None)))
        error.append(((asked - held.asked) / 2).square().mean((1, 2, 3, 4)))
    decibels = -10 * torch.stack(error).clamp(min=1e-10).log10()
    return {
        "spread, given": vs.spread(front), "spread, back": vs.spread(back),
        "psnr, given": vs.psnr(front[0], held.rgb[:, 0]),
        "psnr, mean": float(decibels.mean()), f"psnr, best of {draws}": float(decibels.amax(0).mean()),
    }  # fmt: skip
