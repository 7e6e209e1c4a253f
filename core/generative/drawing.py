"""From the folder of a fitted run to samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.asked import Asked, PictureConfig
from core.contracts import Context, Generator, PromptProcessor, Scene, stream_seed
from core.errors import UserError
from core.types import Cameras, Views

if TYPE_CHECKING:
    from core.registry import Registry
    from core.run import Run

MOST = 256
"""How many samples one call may ask for."""


class AsWritten(PromptProcessor):
    """The same sentence for every view."""

    def texts(self, prompt: str, cameras: Cameras) -> list[str]:
        return [prompt] * len(cameras)


def open_generator(
    folder: Path, overrides: Sequence[str] = (), registry: Registry | None = None, device: torch.device | None = None
) -> tuple[Run, Generator]:
    """A fitted generator with the weights of its run's newest checkpoint, and the run.

    Args:
        folder: the run's.  overrides: changes to its job, for options that matter after the fit.

    Raises:
        UserError: no run there, none with a checkpoint, or one whose task is no generator.
    """
    from core.config.loading import load_job
    from core.run import open_run

    run = open_run(folder, registry)
    if overrides:
        run.job = load_job(folder / "config.yaml", overrides, run.registry)
    spec = run.job.stages[-1].task
    if spec.kind != "generator":
        raise UserError(f"{folder}: its task is '{spec.name}', which cannot be sampled; `fit` a generator first")
    task = run.task(device=device)
    assert isinstance(task, Generator)
    return run, task.eval()


def ask(
    prompt: str = "", image: Path | None = None, picture: PictureConfig | None = None,
    estimate: Callable[[Views], float | None] | None = None, views: Views | None = None,
) -> Asked:  # fmt: skip
    """What a generator is asked for: a sentence ("" for anything), a given picture and where it was taken from, or
    ``views`` that no file holds."""
    return Asked(prompt, "", AsWritten(None, Context()), image, picture, estimate, views)


def draw(generator: Generator, count: int, seed: int = 0, asked: Asked | None = None) -> list[Scene | Tensor]:
    """``count`` samples that follow from ``seed``.

    Raises:
        UserError: ``count`` is not from 1 to 256, or what is asked is not known to the generator.
    """
    if not 1 <= count <= MOST:
        raise UserError(f"{count} samples cannot be made at once: ask for 1 to {MOST}")
    stream = torch.Generator().manual_seed(stream_seed(seed, "sample"))
    with torch.no_grad():
        return generator.sample(count, asked or ask(), stream)


def first_scene(
    folder: Path, expected: str, prompt: str, seed: int, context: Context, image: Path | None = None,
    picture: PictureConfig | None = None,
) -> Scene:
    """One object of a fitted generator, for a lift to start from.

    Args:
        image: a given picture, which only a generator that looks at pictures is shown.

    Raises:
        UserError: no such run, a run of another generator than ``expected``, or one that makes pictures.
    """
    run, generator = _opened(folder, expected, context, "init")
    estimate = context.parts["registry"].hooks.estimate_elevation
    shown = image if generator.looks else None
    (made,) = draw(generator, 1, seed, ask(prompt, shown, picture, lambda views: estimate(views=views)))
    if not isinstance(made, Scene):
        raise UserError(f"init: '{run.job.stages[-1].task.name}' makes pictures, and a lift starts from an object")
    return made


def drawn_picture(folder: Path, expected: str, prompt: str, seed: int, context: Context) -> Path:
    """One picture of a fitted generator, for a lift to follow: a file among the run's samples, drawn once.

    Raises:
        UserError: no such run, a run of another generator than ``expected``, or one that makes objects.
    """
    from core.generative.sheet import picture_of
    from core.run import slug

    run, generator = _opened(folder, expected, context, "draw")
    path = run.folder / "samples" / f"drawn-{slug(prompt)[:48]}-step{run.step}-seed{seed}.png"
    if not path.is_file():
        (made,) = draw(generator, 1, seed, ask(prompt))
        if isinstance(made, Scene):
            raise UserError(f"draw: '{run.job.stages[-1].task.name}' makes objects; set init.run to start from one")
        path.parent.mkdir(exist_ok=True)
        picture_of(made).save(path)
    return path


def _opened(folder: Path, expected: str, context: Context, key: str) -> tuple[Run, Generator]:
    try:
        run, generator = open_generator(folder, registry=context.parts["registry"], device=context.device)
    except UserError as error:
        raise UserError(f"{key}.run: {error}") from None
    name = run.job.stages[-1].task.name
    if expected and name.rpartition("/")[2] != expected.rpartition("/")[2]:
        raise UserError(f"{key}: a run of '{expected}' was expected and {folder} fitted '{name}'")
    return run, generator


def class_of(prompt: str, names: Sequence[str], who: str) -> int | None:
    """Which of the classes ``names`` a prompt tells by its word; None for an empty prompt.

    Raises:
        UserError: it names none of them, or several.
    """
    words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
    if not words:
        return None
    found = [k for k, name in enumerate(names) if name.lower() in words or f"{name.lower()}s" in words]
    if len(found) == 1:
        return found[0]
    what = "several classes" if found else "no class that it knows"
    raise UserError(f"{who}: '{prompt}' names {what}; it was fitted to: {', '.join(names) or '(none)'}")
