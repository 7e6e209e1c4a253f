"""Reading job files: names to paths, ``extends:``, and one tree in the end.

``extends: base`` names a file beside this one (``.yaml`` may be left out), a path, or a shipped preset; a list is laid
over one another from left to right, and the file itself over all of them.

A value needed twice in one file is written once with YAML's own anchors (``&size 64`` … ``*size``). There is no
``${…}``: a prompt may hold any character, and what is common to several files belongs in the one they extend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from core.config.merging import merge
from core.config.nodes import Node, from_python, parse
from core.errors import did_you_mean

PRESETS = Path(__file__).resolve().parents[2] / "configs"
"""The folder of the shipped job files."""

_SUFFIXES = ("", ".yaml", ".yml")


def preset_names(folder: Path | None = None) -> list[str]:
    """Names of the job files in ``folder`` (the shipped ones by default), without ``.yaml``, sorted."""
    folder = PRESETS if folder is None else folder
    return sorted(str(p.relative_to(folder).with_suffix("").as_posix()) for p in folder.rglob("*.yaml"))


def read_source(source: str | Path | Mapping[str, Any], problems: list[str]) -> tuple[Node | None, str, str]:
    """The merged tree of a job, before overrides.

    Args:
        source: a file, the name of a shipped preset, or a mapping.  problems: receives one sentence per fault.

    Returns:
        ``(tree, shown, stem)``: the source as shown to the user and the name a job takes from it. The tree is None
        where a file is missing or unreadable: checking the rest would only report what that file may have said.
    """
    reader = _Files(problems)
    if isinstance(source, Mapping):
        root = from_python(source, "the given mapping")
        tree = reader.extend(root, Path.cwd(), [])
        return tree if reader.complete else None, "the given mapping", "job"
    path = find_file(str(source), Path.cwd())
    if path is None:
        problems.append(_not_found(str(source)))
        return None, str(source), Path(source).stem
    tree = reader.load(path, [])
    return tree if reader.complete else None, shown(path), path.stem


def find_file(name: str, folder: Path, asker: Path | None = None) -> Path | None:
    """The file meant by ``name``: in ``folder`` (or absolute), else among the presets; None where there is none.

    Args:
        asker: the file that asks; it does not mean itself when a preset has its name.
    """
    bases = [base / Path(name + suffix).expanduser() for base in (folder, PRESETS) for suffix in _SUFFIXES]
    found = [path.resolve() for path in bases if path.is_file()]
    return next((path for path in found if path != asker), found[0] if found else None)


def shown(path: Path) -> str:
    """A path as a message shows it: relative to the working folder where it lies in there."""
    try:
        return path.relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def _not_found(name: str) -> str:
    """Why ``name`` is no job file, and what was probably meant."""
    if name and Path(name).is_dir():
        inside = Path(name) / "config.yaml"
        hint = f" It is a run; its job is {inside}." if inside.is_file() else ""
        return f"{name}: is a folder, not a job file.{hint}"
    what = f"{name}: no such file, and no preset of that name" if name else "the name of the job file is empty"
    return f"{what}.{_nearest(name, Path.cwd())}"


def _nearest(name: str, folder: Path) -> str:
    beside = [p.stem for p in folder.glob("*.yaml") if p.is_file()] if folder.is_dir() else []
    names = [*preset_names(), *beside]
    near = get_close_matches(Path(name).stem.lower(), names, n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else did_you_mean(name, names)


class _Files:
    """Follows ``extends`` from file to file."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        self.complete = True

    def fail(self, problem: str) -> None:
        self.complete = False
        self.problems.append(problem)

    def load(self, path: Path, chain: list[Path]) -> Node:
        """The tree of ``path`` over all it extends; ``chain`` holds the files that led here."""
        name = shown(path)
        try:
            root = parse(path.read_text(encoding="utf-8-sig"), name, self.problems)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.problems.append(f"{name}: cannot be read: {reason}")
            root = None
        if root is None:
            self.complete = False
            return Node({}, f"{name}:1")
        if not isinstance(root.value, dict):
            self.fail(f"{root.where}: a job is a list of 'key: value' lines, found {root.shown()}")
            return Node({}, root.where)
        return self.extend(root, path.parent, [*chain, path])

    def extend(self, root: Node, folder: Path, chain: list[Path]) -> Node:
        """``root`` over the files its ``extends`` names."""
        extends = root.value.get("extends")
        own = replace(root, value={k: v for k, v in root.value.items() if k != "extends"})
        if extends is None or extends.is_null:
            return own
        below: Node | None = None
        for item in extends.value if isinstance(extends.value, list) else [extends]:
            parent = self._parent(item, folder, chain)
            if parent is not None:
                below = merge(below, parent)
        return own if below is None else replace(merge(below, own), where=own.where)

    def _parent(self, item: Node, folder: Path, chain: list[Path]) -> Node | None:
        if item.raw is None or isinstance(item.value, (dict, list)):
            self.fail(f"{item.where}: extends: expected the name of a file, found {item.shown()}")
            return None
        path = find_file(item.raw, folder, chain[-1] if chain else None)
        if path is None:
            hint = _nearest(item.raw, folder)
            self.fail(f"{item.where}: extends: there is no file '{item.raw}'.{hint}")
            return None
        if path in chain:
            names = " -> ".join(p.name for p in [*chain[chain.index(path) :], path])
            self.fail(f"{item.where}: extends: the files extend one another in a circle: {names}")
            return None
        return self.load(path, chain)
