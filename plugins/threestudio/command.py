"""``launch.py import-threestudio``: a configuration of threestudio, or a folder of them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import ConfigError, UserError
from plugins.threestudio.convert import chain, convert
from plugins.threestudio.reading import Theirs


def import_threestudio(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="A configuration, several that follow one another, a folder."),
    ],
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="The job file to write.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only count: of each file, and of all.")] = False,
) -> int:
    """Turn a configuration of threestudio into a job; several become its stages. What has no counterpart is told."""
    if summary or any(file.is_dir() for file in files):
        return _summary([inside for file in files for inside in _inside(file)])
    converted = [convert(file) for file in files]
    job = chain([values for values, _ in converted])
    problems = refused(job)
    text = _header([t for _, t in converted]) + _yaml(job)
    if output is None:
        print(text, end="")
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror}") from None
        lost = sum(len(_lost(t)) for _, t in converted)
        print(f"{output}: {lost} of {sum(len(t.values) for _, t in converted)} keys have no counterpart; see its head")
    for problem in problems:
        print(f"still to do: {problem}", file=sys.stderr)
    return 0


def refused(job: dict[str, Any]) -> list[str]:
    """What ``--dry-run`` would say of a job; a prompt or picture that is to be given on the command line is not."""
    from core.config.loading import load_job

    pictures = "image" not in job and ("picture" in job or "given-views" in str(job.get("data", job.get("stages"))))
    extra = {} if "prompt" in job else {"prompt": "a red mug"}
    try:
        load_job(job, extra=extra | ({"image": "picture.png"} if pictures else {}))
    except ConfigError as error:
        return error.problems
    return []


def _inside(file: Path) -> list[Path]:
    if not file.is_dir():
        return [file]
    found = sorted(file.rglob("*.yaml"))
    if not found:
        raise UserError(f"{file}: holds no .yaml file")
    return found


def _lost(t: Theirs) -> dict[str, str]:
    return {key: fate.text for key, fate in t.fates.items() if fate.kind == "lost"}


def _header(all_of: list[Theirs]) -> str:
    lines = [f"# From threestudio's {' and '.join(t.name for t in all_of)}."]
    for t in all_of:
        lines += [f"# {note}." for note in t.notes]
        lines += [f"# no counterpart: {key} = {t.values[key]!r}: {why}" for key, why in _lost(t).items()]
    return "\n".join(lines) + "\n"


def _yaml(job: dict[str, Any]) -> str:
    from core.config.dump import dump_yaml

    return dump_yaml(job)


def _summary(files: list[Path]) -> int:
    """A line for each file, the reasons by frequency, and the share of all keys."""
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    bad = 0
    for file in files:
        job, t = convert(file)
        problems = refused(job)
        bad += bool(problems)
        mine = Counter(fate.kind for fate in t.fates.values())
        kinds += mine
        reasons.update(_lost(t).values())
        print(f"{file.stem:<36}{len(t.values):>5} keys{mine['lost']:>4} without counterpart"
              f"{'  refused: ' + problems[0] if problems else ''}")  # fmt: skip
    total = kinds.total()
    print(f"\nwithout counterpart, by reason ({kinds['lost']}):")
    for reason, count in reasons.most_common():
        print(f"{count:>5}  {reason}")
    print(
        f"\n{len(files)} files, {len(files) - bad} pass --dry-run; {total} keys: {kinds['set']} set, {kinds['same']} "
        f"the same without a key, {kinds['lost']} without counterpart ({kinds['lost'] / max(total, 1):.1%})"
    )
    return int(bad > 0)
