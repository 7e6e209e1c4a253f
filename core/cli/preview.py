"""``preview``: what a job's prior imagines by itself, from a few sides, before minutes are spent on 3D."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.runs import TEXT_PRESET, Overrides, check_overrides, typed_or_read
from core.errors import UserError

if TYPE_CHECKING:
    from core.config.base import ComponentSpec
    from core.types import Cameras

_SIDES = {"front": (0.0, 15.0), "side": (90.0, 15.0), "back": (180.0, 15.0), "overhead": (0.0, 75.0)}
"""Azimuth and elevation in degrees; the words of view-dependent prompts."""


def attach(app: typer.Typer) -> None:
    """Add this module's verb."""
    app.command("preview")(preview)


def preview(
    prompt: Annotated[str, typer.Argument(help="The sentence, in quotes; empty where image=FILE is given.")],
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option("--config", metavar="FILE|PRESET", help="The job whose prior is asked.")
    ] = TEXT_PRESET,
    rows: Annotated[int, typer.Option("-n", min=1, max=16, help="Draws of each view.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 25,
    scale: Annotated[float | None, typer.Option(help="Classifier-free guidance; default: the job's.")] = None,
    seed: Annotated[int, typer.Option(help="The first row's; the next rows count on.")] = 0,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The sheet that is written.")] = Path("preview.png"),
) -> None:
    """Show what the prior imagines of a prompt from four sides, without any 3D: `preview "a red mug" -n 4`."""
    check_overrides(overrides or [])
    prompt = typed_or_read(prompt)
    from core.config.loading import load_job

    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: the sheet is a PNG; give a name that ends in .png")
    job = load_job(config, overrides or [], extra={"prompt": prompt})
    stage = next((s for s in job.stages if any(True for _ in asked_priors(s.task.options))), None)
    if stage is None:
        raise UserError(f"{config} asks no prior, so there is nothing to preview")
    started = time.perf_counter()
    spec, own = next(iter(asked_priors(stage.task.options)))
    pictures = imagined(job.registry, stage.task.options, spec, rows, steps, own if scale is None else scale, seed)
    from core.generative.sheet import sample_sheet

    title = f"{prompt or Path(stage.task.options.image).name}: {spec.name}"
    labels = [f"{side}, seed {seed + k // len(_SIDES)}" for k, side in enumerate([*_SIDES] * rows)]
    output.parent.mkdir(parents=True, exist_ok=True)
    sample_sheet(pictures, title, labels, columns=len(_SIDES)).save(output)
    print(f"{output} ({len(pictures)} pictures in {time.perf_counter() - started:.0f} s)")


def asked_priors(options: Any) -> Iterator[tuple[ComponentSpec, float]]:
    """The priors that a lift asks, with the guidance scale it asks them at: of its guidances, then of its data."""
    for guidance in getattr(options, "guidance", ()):
        yield guidance.prior, _scale(guidance.score.options)
    data = getattr(getattr(options, "data", None), "options", None)
    if getattr(data, "prior", None) is not None:
        yield data.prior, _scale(data)  # type: ignore[union-attr]


def _scale(options: Any) -> float:
    from core.config.schedule import Schedule

    return Schedule.parse(getattr(options, "scale", 7.5)).at(0, 1)


def imagined(
    registry: Any, options: Any, spec: ComponentSpec, rows: int, steps: int, scale: float, seed: int
) -> list[Any]:
    """Pictures [front, side, back, overhead] of each row, as the job's prompts and cameras tell them to the prior."""
    import torch

    from core.asked import Asked
    from core.config.build import build
    from core.contracts import Context
    from core.diffusion.sampler import ddim
    from core.generative.sheet import picture_of

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    context = Context(device=device, parts={"registry": registry})
    words = build(options.prompts, context, registry)
    guess = registry.hooks.estimate_elevation
    asked = Asked(
        options.prompt, options.negative_prompt, words, options.image, options.picture, lambda v: guess(views=v)
    )
    asked.views  # noqa: B018  a picture that cannot be used is told before the prior is loaded
    prior = build(spec, context, registry).to(device).eval().requires_grad_(False)
    cameras = _cameras(asked).to(device)
    told, untold, away = asked.conditions(prior, cameras)
    drawn = [ddim(prior, told, untold, scale, steps, seed + k, away) for k in range(rows)]
    return [picture_of(one) for row in drawn for one in row]


def _cameras(asked: Any) -> Cameras:
    """The four sides; counted from the given picture's, where there is one."""
    import torch

    from core.types import Cameras

    first = 0.0 if asked.views is None else float(asked.views.cameras.azimuth[0])
    around, above = torch.tensor(list(_SIDES.values())).deg2rad().T
    return Cameras.orbit(around + first, above, torch.full((4,), 3.0), torch.full((4,), 0.698), 64, 64)
