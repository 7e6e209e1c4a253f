"""``export``: assets of a finished (or interrupted) run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.runs import Overrides, check_overrides, check_plugins, saved_config
from core.errors import ConfigError, UserError, did_you_mean

if TYPE_CHECKING:
    from core.config.base import ComponentSpec
    from core.config.merging import Override
    from core.registry import Registry


def attach(app: typer.Typer) -> None:
    """Add this module's verb."""
    app.command("export")(export)


def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")],
    overrides: Overrides = None,
    to: Annotated[str, typer.Option("--to", metavar="A,B", help="Exporters; `describe exporter` lists them.")] = "glb",
) -> None:
    """Export a run's object: `export RUN --to glb,video texture=1024 video.frames=96`."""
    check_overrides(overrides or [])
    names = [part.strip() for part in to.split(",") if part.strip()]
    if not names:
        raise UserError("--to names no exporter; `describe exporter` lists them, for example: --to glb,video")
    check_plugins(saved_config(folder).parent)
    from core.run import open_run

    run = open_run(folder)
    for path in write_assets(run, exporter_specs(names, overrides or [], run.registry)):
        print(path)


def exporter_specs(names: list[str], overrides: list[str], registry: Registry) -> list[ComponentSpec]:
    """Checked exporters; ``key=value`` goes to all that have the option, ``NAME.key=value`` to one.

    Raises:
        UserError: no such exporter, or an option that none of them has.
        ConfigError: with every wrong value.
    """
    from core.config.merging import parse_override

    problems: list[str] = []
    changes = [o for o in (parse_override(text, problems) for text in overrides) if o is not None]
    targets = {name: registry.find("exporter", name).load() for name in names}
    fields = {name: set(t.Config.model_fields) for name, t in targets.items()}
    for change in changes:
        if not any(_applies(change, name, fields[name]) for name in names):
            known = sorted(set().union(*fields.values()))
            key = ".".join(change.path)
            problems.append(f"{', '.join(names)} has no option '{key}'.{did_you_mean(change.path[-1], known)}")
    specs = [_spec(n, [c for c in changes if _applies(c, n, fields[n])], registry, problems) for n in names]
    if problems:
        raise ConfigError(problems)
    return specs


def _applies(change: Override, name: str, fields: set[str]) -> bool:
    path = change.path
    return path[0] in fields or (path[0] == name and len(path) > 1 and path[1] in fields)


def _spec(name: str, changes: list[Override], registry: Registry, problems: list[str]) -> Any:
    from dataclasses import replace

    from core.config.merging import apply
    from core.config.nodes import from_python
    from core.config.values import Checker

    node = from_python({"type": name}, f"--to {name}")
    for change in changes:
        path = change.path[1:] if change.path[0] == name and len(change.path) > 1 else change.path
        node = apply(node, replace(change, path=path), problems)
    checker = Checker(registry)
    spec = checker.component("exporter", node, name)
    problems += checker.problems
    return spec


def write_assets(run: Any, specs: list[ComponentSpec]) -> list[Path]:
    """Run exporters on a run's object, into its ``assets`` folder, and tell the plugins of each file.

    Raises:
        UserError: the run's task makes no object.
    """
    import torch

    if run.job.stages[-1].task.kind == "generator":
        raise UserError(f"{run.folder} fitted a generator, which makes any number of objects: sample RUN -n 4 --export")
    task = run.task()
    if not callable(getattr(task, "scene", None)):
        raise UserError(f"{run.folder}: the task '{run.job.stages[-1].task.name}' makes no object to export")
    if run.assets.exists() and not run.assets.is_dir():
        raise UserError(f"{run.assets} is in the way: the assets go into a folder of that name")
    run.assets.mkdir(exist_ok=True)
    written: list[Path] = []
    with torch.no_grad():
        task.eval()
        scene = task.scene()
        for spec in specs:
            for path in task.context.build(spec).export(scene, run.assets):
                written.append(path)
                run.emit("on_export", path=path, kind=spec.name)
    return written
