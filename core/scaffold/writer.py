"""Fills the templates beside this file and puts them where the plugin shall live."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from core import __version__
from core.errors import UserError, did_you_mean
from core.hookspecs import API
from core.registry import KINDS

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class _Kind:
    """What differs between the templates of two kinds."""

    doc: str
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    example: str = "{kind}: {component}"
    function: bool = False  # a function, not a class
    prefix: str = ""


_KINDS: dict[str, _Kind] = {
    "geometry": _Kind("a soft ball whose centre, radius and colour are learnt", gives=("density", "features")),
    "material": _Kind("colour from features, shaded by a light where there are normals", needs=("features",)),
    "background": _Kind("a sky of two learnt colours"),
    "prior": _Kind(
        "the exact diffusion model of plain pictures whose colour the text names",
        needs=("rgb", "text|view-text"),
        example="guidance:\n  - prior: {component}\n    score: sds",
    ),
    "score": _Kind(
        "score distillation in its plainest form",
        example="guidance:\n  - prior: embedded\n    score: {component}",
    ),
    "data": _Kind("random cameras on a ring round the object", gives=("camera", "multiview")),
    "prompt": _Kind(
        "the side that a view shows, said in words",
        needs=("text", "camera"),
        gives=("view-text",),
        example="prompts: {component}",
    ),
    "loss": _Kind(
        "keeps the object in the middle of the picture",
        needs=("opacity",),
        example="losses:\n  {component}: 0.1",
        function=True,
    ),
    "exporter": _Kind("points inside the object, as text", needs=("density",), example="export:\n  - {component}"),
    "metric": _Kind("how much of the picture the object fills, and how colourful it is", needs=("rgb", "opacity")),
    "listener": _Kind("losses as a table for a spreadsheet", example="listeners:\n  - {component}"),
    "command": _Kind(
        "how fast camera rays are made", example="# maquette bench {name}", function=True, prefix="bench-"
    ),
}
TEMPLATED_KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: of the plugin.  files: in it.  next_steps: what to type now.
    """

    folder: Path
    files: list[Path]
    next_steps: str


def write_plugin(name: str, kind: str, into: Path | None = None, package: bool = False) -> Written:
    """Write a plugin with one component of ``kind``, called like the plugin.

    Args:
        name: lower-case letters, digits and dashes.  kind: one of ``TEMPLATED_KINDS``.
        into: the folder that receives the plugin's folder; by default ``plugins`` where that stands in the working
            folder, else the working folder.
        package: a distribution with an entry point, to be installed, rather than a folder.

    Raises:
        UserError: a name or kind that cannot be, or a folder that already exists.
    """
    name = name.replace("_", "-")
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be a plugin's name: lower-case letters, digits and dashes, a letter first")
    if keyword.iskeyword(module):
        raise UserError(f"'{name}' cannot be a plugin's name: it is a word of Python")
    if kind not in _KINDS:
        known = did_you_mean(kind, _KINDS)
        reason = "has no template" if kind in KINDS else "is not a kind of component"
        raise UserError(f"'{kind}' {reason}.{known}")
    into = _default_place(package) if into is None else into.expanduser()
    folder = into / (name if package else module)
    if folder.exists():
        raise UserError(f"{folder} already exists")
    files = _package_files(module, kind) if package else _folder_files(module, kind)
    values = _values(name, module, kind, package)
    try:
        written = [_write(folder / path, template, values) for path, template in files.items()]
    except OSError as error:
        raise UserError(f"no plugin can be written into {into}: {error.strerror}") from None
    return Written(folder, written, _next_steps(folder, into, values, package))


def _default_place(package: bool) -> Path:
    beside = Path("plugins")
    return beside if not package and (beside / "__init__.py").is_file() else Path()


def _folder_files(module: str, kind: str) -> dict[str, str]:
    return {
        "__init__.py": "init.py",
        "plugin.py": "plugin.py",
        f"{kind}.py": f"{kind}.py",
        f"test_{module}.py": "test_folder.py",
        "README.md": "readme.md",
    }


def _package_files(module: str, kind: str) -> dict[str, str]:
    return {
        "pyproject.toml": "pyproject.toml",
        "README.md": "readme.md",
        f"src/{module}/__init__.py": "init.py",
        f"src/{module}/plugin.py": "plugin.py",
        f"src/{module}/{kind}.py": f"{kind}.py",
        f"tests/test_{module}.py": "test_package.py",
    }


def _values(name: str, module: str, kind: str, package: bool) -> dict[str, str]:
    about = _KINDS[kind]
    component = about.prefix + name
    title = "".join(part.capitalize() for part in name.split("-"))
    major, minor, *_ = __version__.split(".")
    below = f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1)
    return {
        "name": name,
        "component": component,
        "module": module,
        "package": module if package else f"plugins.{module}",
        "Class": title,
        "object": module if about.function else title,
        "kind": kind,
        "doc": about.doc,
        "api": str(API),
        "needs": _words(about.needs),
        "gives": _words(about.gives),
        "example": about.example.format(kind=kind, component=component, name=name),
        "at_least": f"{major}.{minor}",
        "below": below,
        "launch": "maquette" if package else "python launch.py",
    }


def _words(signals: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{signal}"' for signal in signals) + "]"


def _write(path: Path, template: str, values: dict[str, str]) -> Path:
    text = (_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _next_steps(folder: Path, into: Path, values: dict[str, str], package: bool) -> str:
    check = f"check {values['component']} --kind {values['kind']}"
    if package:
        return f"Install it: pip install -e {folder}\nTest it:    maquette {check}"
    if into == Path("plugins"):
        return f"Test it: python launch.py {check}"
    return f"Make it known: export MAQUETTE_PLUGIN_PATH={into.absolute()}\nTest it:       maquette {check}"
