"""``launch.py eval ib-planes RUN``: views that a fitted run never saw, from so many clean pictures, beside baselines.

Of each unseen object or scene some views are given, the others of its set are denoised beside them, and one camera is
no part of the set: only there a scene shows itself. A run trained with ``leave_out=false drop=0`` is the ablation
(``--against``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.contracts import Context
from core.errors import UserError
from core.generative import view_scores as vs
from core.generative.through_rendering import Code, ThroughRendering, side_by_side
from core.types import Cameras
from plugins.ib_planes.ib_planes import IBPlanes

_BATCH, _GAP = 8, 3
_SHIFT = (1.5, -2.0, 0.7)  # of the moved world, world units


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    against: Annotated[Path | None, typer.Option(help="Another run, for a second table.")] = None,
    objects: Annotated[int, typer.Option(help="Unseen objects or scenes.")] = 24,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    most: Annotated[int, typer.Option(help="Clean pictures of the first row; more than in training is fine.")] = 3,
    sheet: Annotated[Path | None, typer.Option(help="A picture of true and drawn views.")] = None,
) -> dict[str, Any]:
    """PSNR of views from cameras outside the set, and of the denoised ones, from 3, 2, 1 and no clean pictures."""
    if objects < 2:
        raise UserError("--objects: two at least")
    if most < 1:
        raise UserError("--most: one at least")
    table: dict[str, Any] = {}
    for folder in (run, against):
        if folder is not None:
            task = vs.opened(folder, IBPlanes)
            table[str(folder)] = one_run(task, objects, steps, most, sheet if folder is run else None)
    task = vs.opened(run, IBPlanes)
    table["references"] = references(task, objects, most)
    print("references at the unseen camera: " + ", ".join(f"{k} {v:.2f}" for k, v in table["references"].items()))
    table["moved world"] = moved_apart(task, steps)
    print(f"the world turned and moved: colours differ by {table['moved world']:.2g} of their range at most")
    return table


def unseen(task: Any, objects: int, most: int = 1) -> tuple[Tensor, Cameras]:
    """Pictures [B, V, 3, S, S] and cameras of objects that no training shows: a set of as many views as in training,
    or one more than ``most``, and last the unseen one."""
    needed = max(task.options.views, most + 1) + 1
    views = max(task.data.options.views, needed)
    changed = task.data.options.model_copy(update={"images": objects * views, "views": views, "split": "test"})
    own = task.data
    task.data = type(own)(changed, Context())
    try:
        return task.views(torch.arange(objects), torch.arange(needed).expand(objects, -1))  # type: ignore[no-any-return]
    finally:
        task.data = own


@torch.no_grad()
def one_run(task: Any, objects: int, steps: int, most: int, sheet: Path | None) -> dict[Any, Any]:
    """Rows by the number of clean views; printed."""
    rgb, cameras = unseen(task, objects, most)
    total, shown = task.options.views, []
    rows: dict[Any, Any] = {}
    heads = ("unseen camera", "denoised views", "planes agree", "spread, given", "spread, else")
    print(f"{'clean views':<12}" + "".join(f"{head:>16}" for head in heads))
    for clean in [k for k in range(most, -1, -1) if k < total or (most - k) % 2 == 0]:
        drawn, codes, own = draw_beside(task, rgb, cameras, clean, steps, seed=0)
        row = {"planes agree": agreement(task, codes, own)}
        if clean:
            row["unseen"] = vs.psnr(drawn[:, -1], rgb[:, -1])
            row["denoised"] = vs.psnr(drawn[:, clean:-1], rgb[:, clean : drawn.shape[1] - 1])
        if 0 < clean < total:
            other, _, _ = draw_beside(task, rgb, cameras, clean, steps, seed=1)
            row["spread_given"] = vs.spread([d[:, :clean] for d in (drawn, other)])
            row["spread_else"] = vs.spread([d[:, clean:] for d in (drawn, other)])
        rows[clean] = row
        figures = [row.get(k) for k in ("unseen", "denoised", "planes agree")]
        spreads = [row.get(k) for k in ("spread_given", "spread_else")]
        told = ["-" if v is None else f"{v:.2f}" for v in figures]
        told += ["-" if v is None else f"{100 * v:.2f} %" for v in spreads]
        print(f"{clean:<12}" + "".join(f"{t:>16}" for t in told))
        if clean < total:
            shown.append(torch.cat([drawn[:4, :total], drawn[:4, -1:]], 1))
    if sheet is not None:
        write_sheet([torch.cat([rgb[:4, :total], rgb[:4, -1:]], 1), *shown], sheet)
    return rows


def draw_beside(
    task: Any, rgb: Tensor, cameras: Cameras, clean: int, steps: int, seed: int
) -> tuple[Tensor, list[Code], Cameras]:
    """Scenes that were drawn from the first ``clean`` views of each, beside as many noisy ones as make a set of
    training's, or one: all views [B, V + 1, 3, S, S] of a set and the last camera, the scenes, their B V cameras."""
    views = max(task.options.views, clean + 1)
    made, scenes, sets = [], list[Code](), []
    generator, look = torch.Generator().manual_seed(seed), task.average.model["look"]
    place = torch.arange(len(cameras)).view(len(rgb), -1)
    for first in range(0, len(rgb), _BATCH):
        some, at = rgb[first : first + _BATCH], place[first : first + _BATCH]
        given = (some[:, :clean], cameras[at[:, :clean].flatten()]) if clean else None
        start = torch.randn(some[:, clean:views].shape, generator=generator).to(some)
        codes = task.walk(start, cameras[at[:, clean:views].flatten()], given, steps=steps)
        own = cameras[at[:, :views].flatten()]
        every = side_by_side([own, cameras[at[:, -1]]], len(some))
        made.append(task.pictures(look, codes, every))
        scenes += codes
        sets.append(own)
    return torch.cat(made), scenes, Cameras.cat(sets)


def agreement(task: Any, codes: Sequence[Code], cameras: Cameras) -> float:
    """PSNR between the views of a set as drawn from the other planes, and as drawn from all of them, dB."""
    look, views = task.average.model["look"], len(cameras) // len(codes)
    others = ~torch.eye(views, dtype=torch.bool, device=task.device)
    without = [c | {"keep": others.repeat_interleave(cameras.height * cameras.width, 0)} for c in codes]
    one, all_ = (ThroughRendering.pictures(task, look, each, cameras) for each in (without, codes))
    return vs.psnr(one, all_)


@torch.no_grad()
def references(task: Any, objects: int, most: int = 1) -> dict[str, float]:
    """PSNR at the unseen camera of what needs no model: the first given picture, of three that from the nearest
    side, and the training pictures' mean."""
    rgb, cameras = unseen(task, objects, most)
    truth, eyes = rgb[:, -1:], cameras.position.unflatten(0, rgb.shape[:2])
    side = torch.nn.functional.normalize(eyes, dim=-1)
    nearest = (side[:, :3] * side[:, -1:]).sum(-1).argmax(1)
    drawn, _ = task.drawn_views(256, 1, torch.Generator().manual_seed(0))
    return {
        "given picture": vs.psnr(rgb[:, :1], truth),
        "nearest of three": vs.psnr(rgb[torch.arange(len(rgb)), nearest][:, None], truth),
        "mean picture": vs.psnr(drawn.mean(0)[None], truth),
    }


@torch.no_grad()
def moved_apart(task: Any, steps: int) -> float:
    """How far pictures of a scene differ, in shares of their range, when the world is turned and moved under it."""
    rgb, cameras = unseen(task, 1)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    world = torch.eye(4)
    world[:3, :3], world[:3, 3] = turn * torch.linalg.det(turn), torch.tensor(_SHIFT)
    moved = replace(cameras, c2w=world.to(cameras.c2w) @ cameras.c2w)
    a, b = (draw_beside(task, rgb, c, 1, steps, seed=0)[0] for c in (cameras, moved))
    return float((a - b).abs().max() / 2)


def write_sheet(rows: list[Tensor], path: Path) -> None:
    """Of each object one row of pictures: its true views, then those drawn from 3, 2, 1 and none of them."""
    lines = []
    for views in zip(*rows, strict=True):
        blocks = [torch.nn.functional.pad(torch.cat(list(block), 2), (0, _GAP), value=1.0) for block in views]
        lines.append(torch.cat(blocks, 2)[None, :, :, :-_GAP])
    vs.write_sheet(lines, path)
