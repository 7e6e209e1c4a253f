"""``text``, ``image``, ``run``, ``fit`` and ``resume``: from a job file and overrides to a run.

A prompt is an argument of its own and reaches the job as it was typed; only ``key=value`` words are overrides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.discovery import get_registry
from core.errors import ConfigError, UserError

if TYPE_CHECKING:
    from core.config.job import Job

TEXT_PRESET = "text-to-3d"
IMAGE_PRESET = "zero123-then-detail"
_FITS_NOTHING = "{0} fits nothing: its task is 'lift'. Use: text \"a red mug\" --config {0}"
_KEY = re.compile(r"[A-Za-z_][\w.\[\]-]*=", re.ASCII)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the job file.")]
Output = Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Folder that receives the run's folder.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Everything random follows from it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No status line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, build and train nothing.")]
Print = Annotated[bool, typer.Option("--print-config", help="Print the resolved job as YAML and stop.")]
Resume = Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Continue this run's last checkpoint.")]


def attach(app: typer.Typer) -> None:
    """Add this module's verbs."""
    for verb in (text, image, run, fit, resume):
        app.command(verb.__name__)(verb)


def text(
    prompt: Annotated[str, typer.Argument(help="The sentence, in quotes; @FILE reads it from a file.")],
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option("--config", metavar="FILE|PRESET", help="The job to start from.")
    ] = TEXT_PRESET,
    output: Output = None,
    seed: Seed = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    print_config: Print = False,
    resume: Resume = None,
) -> None:
    """Make a 3D object from a sentence."""
    if not prompt.strip():
        raise UserError('the prompt is empty; write what to make, for example: maquette text "a red mug"')
    prompt = typed_or_read(prompt)
    check_overrides(overrides or [], f'. A prompt of several words needs quotes: text "{prompt} …"')
    try:
        job = _load(config, overrides, {"prompt": prompt, **_given(output, seed)})
    except ConfigError as error:
        if not any(": prompt: unknown key" in problem for problem in error.problems):
            raise
        raise UserError(f"{config} takes no prompt, so it makes nothing from a sentence. Use: fit {config}") from None
    _carry_out(job, quiet, dry_run, print_config, resume)


def typed_or_read(prompt: str) -> str:
    """The prompt itself, read at once where it stands in a file.

    Raises:
        UserError: there is no text in that file.
    """
    from core.prompt_file import read_prompt

    try:
        return read_prompt(prompt)
    except ValueError as error:
        raise UserError(str(error)) from None


def image(
    picture: Annotated[Path, typer.Argument(metavar="FILE", help="A picture, or a folder of pictures and cameras.")],
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option("--config", metavar="FILE|PRESET", help="The job to start from.")
    ] = IMAGE_PRESET,
    prompt: Annotated[str | None, typer.Option("--prompt", help="What it shows, for priors that read.")] = None,
    mask: Annotated[Path | None, typer.Option("--mask", metavar="FILE", help="A picture, white on the object.")] = None,
    elevation: Annotated[
        float | None, typer.Option("--elevation", help="Degrees above the horizon from which it was taken.")
    ] = None,
    output: Output = None,
    seed: Seed = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    print_config: Print = False,
    resume: Resume = None,
) -> None:
    """Make a 3D object from a picture."""
    if not picture.exists():
        raise UserError(f"there is no picture {picture}")
    check_overrides(overrides or [])
    told = {"mask": None if mask is None else str(mask.absolute()), "elevation": elevation}
    told = {key: value for key, value in told.items() if value is not None}
    given = {"image": str(picture.absolute()), "prompt": prompt, **_given(output, seed)}
    try:
        job = _load(config, overrides, given | ({"picture": told} if told else {}))
    except ConfigError as error:
        if not any(": image: unknown key" in problem for problem in error.problems):
            raise
        raise UserError(f"{config} takes no picture, so it makes nothing from one. Use: fit {config}") from None
    _carry_out(job, quiet, dry_run, print_config, resume)


def run(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A job file, or a preset's name.")],
    overrides: Overrides = None,
    output: Output = None,
    seed: Seed = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    print_config: Print = False,
    resume: Resume = None,
) -> None:
    """Run any job file or preset."""
    check_overrides(overrides or [])
    _carry_out(_load(config, overrides, _given(output, seed)), quiet, dry_run, print_config, resume)


def fit(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A job file, or a preset's name.")],
    overrides: Overrides = None,
    output: Output = None,
    seed: Seed = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    print_config: Print = False,
    resume: Resume = None,
) -> None:
    """Fit a prior or a generator to data."""
    check_overrides(overrides or [])
    if not any(word.startswith("task=") for word in overrides or []):
        _refuse_lift(config)
    job = _load(config, overrides, _given(output, seed))
    lifts = [stage.config.name for stage in job.stages if stage.task.name.rpartition("/")[2] == "lift"]
    if lifts:
        raise UserError(_FITS_NOTHING.format(config))
    _carry_out(job, quiet, dry_run, print_config, resume)


def _refuse_lift(config: str) -> None:
    """Before anything else is said about a job without a prompt: it was not meant for this verb."""
    from core.config.sources import read_source

    tree, _, _ = read_source(config, [])
    task = tree.value.get("task") if tree is not None else None
    if task is not None and str(task.raw).rpartition("/")[2] == "lift":
        raise UserError(_FITS_NOTHING.format(config))


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, or one of its checkpoints.")],
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Continue a run from its last checkpoint, with the job it was started with and any changes."""
    check_overrides(overrides or [])
    config = saved_config(folder)
    check_plugins(config.parent)
    job = _load(str(config), overrides, {})
    _carry_out(job, quiet, dry_run=False, print_config=False, resume=folder)


def saved_config(folder: Path) -> Path:
    """The resolved job of a run, given the run's folder or one of its checkpoints.

    Raises:
        UserError: ``folder`` is neither.
    """
    for place in (folder, folder.parent.parent):
        if (place / "config.yaml").is_file():
            return place / "config.yaml"
    what = "holds no config.yaml, so it is not a run's folder" if folder.is_dir() else "does not exist"
    if folder.is_file():
        what = "is a file, not a run's folder"
    raise UserError(f"{folder} {what}")


def check_plugins(folder: Path) -> None:
    """Name the absent plugins of a run at once, rather than each of their components as unknown.

    Raises:
        UserError: a plugin that the run used is not loaded, with the reason where there is one.
    """
    try:
        recorded = json.loads((folder / "plugins.json").read_text(encoding="utf-8"))
        used = [str(p["name"]) for p in recorded if p["used"]]
    except (OSError, ValueError, TypeError, KeyError):
        return  # no record: what is missing will show
    registry = get_registry()
    found = {name: registry.plugin(name) for name in used}
    gone = [name if p is None else f"{name} ({p.reason})" for name, p in found.items() if not p or p.status != "loaded"]
    if gone:
        raise UserError(
            f"{folder} was made with plugins that are not loaded now: {', '.join(gone)}. Install them, or name their "
            f"folder in MAQUETTE_PLUGIN_PATH"
        )


def check_overrides(words: Sequence[str], hint: str = "") -> None:
    """Refuse a word that is not ``key=value``.

    Raises:
        UserError: naming the word.
    """
    for word in words:
        if not _KEY.match(word):
            raise UserError(f"'{word}' is not of the form key=value{hint}")


def _given(output: Path | None, seed: int | None) -> dict[str, Any]:
    values = {"output": None if output is None else str(output), "seed": seed}
    return {key: value for key, value in values.items() if value is not None}


def _load(config: str, overrides: list[str] | None, extra: dict[str, Any]) -> Job:
    from core.config.loading import load_job

    return load_job(config, overrides or [], extra=extra)


def _check_pictures(job: Job) -> None:
    """Read what the job is given, so that a picture that cannot be used is told before anything is loaded."""
    for stage in job.stages:
        options: Any = stage.task.options
        if getattr(options, "image", None) is not None and hasattr(options, "picture"):
            from core.asked import read_given

            read_given(options.image, options.picture)


def _carry_out(job: Job, quiet: bool, dry_run: bool, print_config: bool, resume: Path | None) -> None:
    if print_config:
        from core.config.dump import dump_yaml

        print(dump_yaml(job.resolved), end="")
        return
    from core.kernels.dispatch import check_environment

    check_environment()
    _check_pictures(job)
    if dry_run:
        steps = ", ".join(f"{s.config.name} ({s.task.name}, {s.config.steps} steps)" for s in job.stages)
        print(f"{job.source}: nothing is wrong. Stages: {steps}.")
        return
    if resume is not None:
        saved_config(resume)
    from core.job import run_job

    done = run_job(job, job.registry, resume=resume, quiet=quiet)
    if done.main:  # one of several processes tells
        print(f"{done.state}: {done.folder}")
    if done.stop_reason in ("Ctrl-C", "asked to terminate") or done.message.startswith("interrupted"):
        raise typer.Exit(130)
