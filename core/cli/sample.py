"""``sample``: objects or pictures from a fitted generator."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.assets import exporter_specs
from core.cli.runs import Overrides, check_overrides, check_plugins, saved_config
from core.errors import UserError

if TYPE_CHECKING:
    from core.config.base import ComponentSpec
    from core.contracts import Generator, Scene
    from core.run import Run

_ASKED = ("prompt", "image")


def attach(app: typer.Typer) -> None:
    """Add this module's verb."""
    app.command("sample")(sample)


def sample(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that fitted a generator.")],
    overrides: Overrides = None,
    count: Annotated[int, typer.Option("-n", "--count", help="How many, 1 to 256.")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")] = 0,
    export: Annotated[bool, typer.Option("--export", help="Write each object by the job's exporters too.")] = False,
    to: Annotated[str, typer.Option("--to", metavar="A,B", help="Exporters instead of the job's own.")] = "",
) -> None:
    """Draw from a fitted generator: `sample RUN -n 16 prompt="a chair" --export`; a sheet goes to RUN/samples."""
    check_overrides(overrides or [])
    given = dict(word.split("=", 1) for word in overrides or [] if word.split("=", 1)[0] in _ASKED)
    changes = [word for word in overrides or [] if word.split("=", 1)[0] not in _ASKED]
    from core.generative.drawing import MOST, ask, draw, open_generator

    if not 1 <= count <= MOST:
        raise UserError(f"-n {count}: samples are made by 1 to {MOST} at once")
    image = Path(given["image"]) if given.get("image") else None
    if image is not None and not image.exists():
        raise UserError(f"there is no picture {image}")
    check_plugins(saved_config(folder).parent)
    run, generator = open_generator(saved_config(folder).parent, changes)
    specs = _exporters(run, generator, to) if export or to else []
    made = draw(generator, count, seed, ask(given.get("prompt", ""), image))
    for path in write_samples(run, generator, made, _title(run, given.get("prompt", ""), seed), specs):
        print(path)


def _title(run: Run, prompt: str, seed: int) -> str:
    name = run.job.stages[-1].task.name
    return f"{name}, step {run.step}" + (f', "{prompt}"' if prompt else "") + f", seed {seed}"


def _exporters(run: Run, generator: Generator, to: str) -> list[ComponentSpec]:
    """Those named by ``--to``, else the job's own (its option ``export``), else GLB."""
    names = [part.strip() for part in to.split(",") if part.strip()]
    own = getattr(generator.options, "export", [])
    return list(own) if own and not names else exporter_specs(names or ["glb"], [], run.registry)


def write_samples(
    run: Run, generator: Generator, samples: list[Any], title: str, specs: list[ComponentSpec]
) -> list[Path]:
    """``samples/sheet.png``, ``samples/00.png`` … and, for objects, ``samples/00/`` with what the exporters write; an
    earlier call's samples are replaced."""
    from core.generative.sheet import picture_of, sample_sheet

    folder = run.folder / "samples"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if re.fullmatch(r"\d{2,3}", old.name) and old.is_dir():
            shutil.rmtree(old)
        elif re.fullmatch(r"\d{2,3}\.png", old.name):
            old.unlink()
    pictures = [picture_of(one) for one in samples]
    written = [folder / "sheet.png"]
    sample_sheet(pictures, title).save(written[0])
    for k, (picture, one) in enumerate(zip(pictures, samples, strict=True)):
        written.append(folder / f"{k:02d}.png")
        picture.save(written[-1])
        if specs and not hasattr(one, "shape"):
            written += _export(run, generator, one, folder / f"{k:02d}", specs)
    return written


def _export(run: Run, generator: Generator, scene: Scene, folder: Path, specs: list[ComponentSpec]) -> list[Path]:
    import torch

    build: Any = generator.context.build
    folder.mkdir(exist_ok=True)
    written = []
    with torch.no_grad():
        for spec in specs:
            for path in build(spec).export(scene, folder):
                written.append(path)
                run.emit("on_export", path=path, kind=spec.name)
    return written
