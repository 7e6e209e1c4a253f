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
from core.generative.sample_scores import free_table
from core.types import Cameras
from plugins.viewset.viewset import Viewset

AZIMUTH = "Degrees from which the picture of those samples is taken, at random by default; 90 hides a mug's handle."


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    against: Annotated[Path | None, typer.Option(help="A run with unseen=0, for the ablation.")] = None,
    objects: Annotated[int, typer.Option(help="Unseen objects.")] = 24,
    draws: Annotated[int, typer.Option(help="Samples of each object, for how far they differ.")] = 8,
    azimuth: Annotated[float | None, typer.Option(help=AZIMUTH)] = None,
    samples: Annotated[int, typer.Option(help="Samples from nothing.")] = 32,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    output: Annotated[Path, typer.Option(help="Folder that receives the picture.")] = Path("runs/eval-viewset"),
) -> dict[str, Any]:
    """PSNR and SSIM by the number of clean pictures, baselines, the ablation, how far samples differ where, and what
    samples from nothing are."""
    if objects < 1 or draws < 2 or samples < 2:
        raise UserError("--objects: one at least; --draws and --samples: two at least, for they are compared")
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
    table["draws"], drawn = differences(task, held, draws, steps, azimuth)
    table["from nothing"], free = free_table(task, lambda one: one.draw(samples, None, seeded(0), steps), samples)
    for title, rows in table.items():
        vs.print_rows(rows, title)
    few = min(objects, 8)
    rows = [held.rgb[:few, 0], held.asked[:few, 0], *(seen[k][:few, 0] for k in (3, 2, 1, 0))]
    vs.write_sheet(rows, output / "viewset.png")
    vs.write_sheet([row[:few] for row in drawn], output / "draws.png")
    vs.write_sheet([row.movedim(-1, 1) * 2 - 1 for row in free[:8].transpose(0, 1)[::2]], output / "samples.png")
    print(f"\n{output / 'viewset.png'}: given, asked, and the asked view from 3, 2, 1 and 0 clean pictures")
    print(f"{output / 'draws.png'}: given, three samples from its side; the object from behind, the same samples")
    print(f"{output / 'samples.png'}: samples from nothing, each from four sides")
    return table


def seeded(seed: int) -> torch.Generator:
    """A stream of random numbers."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def views_from(task: Viewset, held: vs.Held, clean: int, steps: int, seed: int = 0) -> Tensor:
    """[B, ASKED, 3, S, S] the asked views of scenes drawn from the first ``clean`` pictures of each object."""
    given = (held.rgb[:, :clean], held.camera(slice(clean))) if clean else None
    codes = task.draw(len(held.rgb), given, seeded(seed), steps)
    return vs.shown(task, codes, held.camera(slice(vs.GIVEN, None)))


@torch.no_grad()
def differences(
    task: Viewset, held: vs.Held, draws: int, steps: int, azimuth: float | None = None
) -> tuple[dict[str, dict[str, float]], list[Tensor]]:
    """How far samples from one picture differ seen from its side and from the opposite one, samples from nothing beside
    them, and whether the best of them is nearer to the truth than they are on average; then rows of pictures.

    Args:
        azimuth: of the given picture, degrees; None gives each object's first.
    """
    own, firsts = held.rgb[:, 0], held.camera(slice(1))
    if azimuth is not None:
        firsts = Cameras.turntable(torch.full((len(own),), math.radians(azimuth)), 0.35, task.size).to(task.device)
        own = _true(held, firsts)
    backs = Cameras.orbit(
        firsts.azimuth + math.pi, firsts.elevation, firsts.distance, firsts.fov_y, task.size, task.size
    )
    behind = _true(held, backs)
    rows: dict[str, dict[str, float]] = {}
    pictures: list[Tensor] = []
    for name, clean in (("1 clean", (own[:, None], firsts)), ("0 clean", None)):
        front, back = [], []
        for seed in range(draws):
            codes = task.draw(len(own), clean, seeded(seed), steps)
            front.append(vs.shown(task, codes, firsts)[:, 0])
            back.append(vs.shown(task, codes, backs)[:, 0])
        error = ((torch.stack(back) - behind) / 2).square().mean((2, 3, 4)).clamp(min=1e-10)
        decibels = -10 * error.log10()
        rows[name] = {
            "spread, given": vs.spread(front), "spread, back": vs.spread(back),
            "psnr, given": vs.psnr(front[0], own),
            "psnr, back": float(decibels.mean()), f"best of {draws}": float(decibels.amax(0).mean()),
        }  # fmt: skip
        pictures = pictures or [own, *front[:3], behind, *back[:3]]
    return rows, pictures


def _true(held: vs.Held, cameras: Cameras) -> Tensor:
    """[B, 3, S, S] in [-1, 1] the objects, each from its own camera."""
    rows = [held.data.seen_from(held.index[k : k + 1].numpy(), cameras[k : k + 1])["rgb"] for k in range(len(held.rgb))]
    return (torch.cat(rows)[:, 0].movedim(-1, 1) * 2 - 1).to(held.rgb)
