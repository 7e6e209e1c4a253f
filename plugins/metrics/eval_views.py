"""``launch.py eval views``: another view of unseen objects by a prior that is given one picture of each.

Baselines in the same run: the given picture itself, and the mean picture of the training objects from that direction.
The azimuth is right where the nearest of eight true views is the one that was asked for (Liu et al. 2023 report no such
number; it tells a prior that ignores the camera from one that follows it).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.contracts import Context
from core.diffusion.sampler import ddim
from core.discovery import get_registry
from core.types import Cameras
from plugins.metrics.folders import machine, save_grid
from plugins.metrics.given import ELEVATION, SIZE, Given, given_objects
from plugins.metrics.plot import line_plot

STEP = 15
TURNS = [float(turn) for turn in range(0, 360, STEP)]
FAR = 45.0
"""Degrees from which on a view counts as another one."""


def evaluate(
    prior: Annotated[str, typer.Option(help="A prior that needs a picture.")] = "embedded-zero123",
    family: Annotated[str, typer.Option(help="Its family: a folder, or built-in.")] = "built-in",
    objects: Annotated[int, typer.Option(help="How many objects; 0 takes all.")] = 0,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    scale: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 2.0,
    given: Annotated[Path | None, typer.Option(help="A YAML file in the place of the shipped list.")] = None,
    output: Annotated[Path, typer.Option(help="Folder that receives pictures and plot.")] = Path("runs/eval-views"),
) -> dict[str, Any]:
    """PSNR against the copied picture and the mean picture, azimuth accuracy, and the error over the angle."""
    found = get_registry().find("prior", prior).load()
    model = found(found.Config(family=family), Context()).eval()
    listed, mean = given_objects(given, objects), mean_pictures()
    rows, sheet = [], []
    print(f"{'object':<20}{'PSNR':>8}{'copied':>8}{'mean':>8}{'azimuth':>9}   (views {FAR:g} degrees away or more)")
    for one in listed:
        truth, made = one.seen(TURNS)[0], novel_views(model, one, scale, steps)
        rows.append(score(one.label, made, truth, mean))
        r = rows[-1]
        print(f"{one.label:<20}{r['psnr']:>8.2f}{r['copied']:>8.2f}{r['mean']:>8.2f}{r['azimuth']:>9.2f}", flush=True)
        shown = [k for k, turn in enumerate(TURNS) if turn % 45 == 0]
        sheet += [truth[shown], made[shown]]
    total = {k: sum(r[k] for r in rows) / len(rows) for k in ("psnr", "copied", "mean", "azimuth")}
    figures = "".join(f"{total[k]:>8.2f}" for k in ("psnr", "copied", "mean"))
    print(f"{'mean of ' + str(len(rows)):<20}{figures}{total['azimuth']:>9.2f}")
    curves = {k: by_angle([r[f"{k}_by_turn"] for r in rows]) for k in ("psnr", "copied", "mean")}
    output.mkdir(parents=True, exist_ok=True)
    save_grid(sheet, output / "views.png")
    names = {"psnr": prior, "copied": "copied picture", "mean": "mean picture"}
    angles = [STEP * k for k in range(180 // STEP + 1)]
    # Without 0: there the copied picture is the answer.
    shown_curves = {names[k]: v[1:] for k, v in curves.items()}
    line_plot(output / "angle.png", angles[1:], shown_curves, "degrees from the given view", "PSNR, dB")
    print("PSNR over the angle: " + ", ".join(f"{a}: {p:.1f}" for a, p in zip(angles, curves["psnr"], strict=True)))
    print(f"{output / 'views.png'}, {output / 'angle.png'}; {machine()}")
    return {"rows": rows, "total": total, "by_angle": curves, "angles": angles, "machine": machine()}


@torch.no_grad()
def novel_views(model: Any, one: Given, scale: float, steps: int) -> Tensor:
    """[V, S, S, 3] at all ``TURNS``; each view from its own noise, or with three others, at right angles to each other,
    by a prior that denoises sets of four."""
    order = torch.arange(len(TURNS))
    if getattr(model, "frames", 1) == 4:
        order = order.view(4, -1).T.flatten()
    cameras, nobody = one.cameras([TURNS[k] for k in order]), [""] * len(TURNS)
    told = model.condition(nobody, cameras, one.views())
    drawn = ddim(model, told, model.opposite(told, nobody, cameras), scale, steps).cpu()
    return drawn[order.argsort()]


def mean_pictures() -> Tensor:
    """[S, S, 3] the mean picture of one object of each category from all sides, at the given elevation."""
    source = get_registry().find("data", "procedural").load()
    azimuth = torch.arange(8) * math.pi / 4
    cameras = Cameras.turntable(azimuth, math.radians(ELEVATION), SIZE)
    total = [source.pictures_of(name, None, cameras, 2).mean((0, 1)) for name in source.category_names]
    return torch.stack(total).mean(0)


def score(label: str, made: Tensor, truth: Tensor, mean: Tensor) -> dict[str, Any]:
    """PSNR of the far views and of each turn, of the prior and of both baselines, and the share of right azimuths."""
    by_turn = {"psnr": made, "copied": truth[:1].expand_as(truth), "mean": mean.expand_as(truth)}
    errors = {k: (v - truth).square().mean((1, 2, 3)) for k, v in by_turn.items()}
    far = torch.tensor([FAR <= turn <= 360 - FAR for turn in TURNS])
    eight = [k for k, turn in enumerate(TURNS) if turn % 45 == 0]
    nearest = torch.cdist(made[eight].flatten(1), truth[eight].flatten(1)).argmin(1)
    out: dict[str, Any] = {"object": label, "azimuth": float((nearest == torch.arange(8)).float().mean())}
    for name, error in errors.items():
        out[name] = decibel(error[far]).mean().item()
        out[f"{name}_by_turn"] = decibel(error).tolist()
    return out


def decibel(error: Tensor) -> Tensor:
    """Peak signal to noise of mean squared errors of pictures in [0, 1]."""
    return -10 * error.clamp(min=1e-10).log10()


def by_angle(rows: list[list[float]]) -> list[float]:
    """Means over objects and over both directions, at 0, 15 … 180 degrees."""
    mean, half = torch.tensor(rows).mean(0), len(TURNS) // 2
    return [(0.5 * (mean[k] + mean[-k])).item() if 0 < k < half else mean[k].item() for k in range(half + 1)]
