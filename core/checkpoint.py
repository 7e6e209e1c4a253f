"""Checkpoints that are either whole or absent, hold no pickled object, and say clearly what is wrong with them.

A checkpoint is a folder::

    step-000123/
        model.safetensors   the task's tensors
        optimizer.pt        moments and step counts; read with ``weights_only=True``
        state.json          format, position in the run, seed, plugin versions, size and checksum of the two files

It is written under a temporary name and renamed at the end, so a reader never meets half of one.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.errors import UserError

FORMAT = 1
_NAME = re.compile(r"step-(\d{6,})")
_FILES = ("model.safetensors", "optimizer.pt")


@dataclass
class Position:
    """Where in a run a checkpoint was taken.

    Attributes:
        step: updates done in the whole run.  stage: index of the stage.  index: updates done in that stage.
        total: updates of the whole run.  seed: the run's seed; with stage and index it determines every random stream.
        plugins: version by plugin.  extra: what modules keep beside tensors (``get_extra_state``), as JSON.
        note: why it was taken, where that is not plain (``non-finite loss``).
    """

    step: int
    stage: int = 0
    index: int = 0
    total: int = 0
    seed: int = 0
    plugins: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def name_of(step: int) -> str:
    """The folder name of a checkpoint after ``step`` updates."""
    return f"step-{step:06d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first; whole ones only by construction, usable ones not guaranteed."""
    if not folder.is_dir():
        return []
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name)) and p.is_dir()]
    return [path for _, path in sorted(found)]


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one go: a reader sees the old text or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def save(folder: Path, task: nn.Module, position: Position, optimizer: dict[str, Any] | None = None) -> Path:
    """Write a checkpoint; ``folder`` appears only when all of it is on disk.

    Args:
        folder: its final path.  task: whose ``state_dict`` is kept.  position: kept as ``state.json``.
        optimizer: nested dictionaries, lists and tensors (the optimiser's and the loss scaler's state).

    Raises:
        UserError: a module keeps state that is neither a tensor nor JSON.
    """
    tensors, position.extra = _split(task.state_dict())
    _check_json(position.extra)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file(tensors, temporary / _FILES[0])
        torch.save(optimizer or {}, temporary / _FILES[1])
        files = {name: _fingerprint(temporary / name) for name in _FILES}
        state = {"format": FORMAT, **asdict(position), "files": files}
        (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        for name in (*_FILES, "state.json"):
            _flush(temporary / name)
        _replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def read_position(folder: Path) -> Position:
    """The position of a checkpoint, after checking that all of it is there and unaltered.

    Raises:
        UserError: missing, incomplete, altered, or written in another format; names the newest usable neighbour.
    """
    try:
        return _read_position(folder)
    except UserError as error:
        raise UserError(f"{error}.{_alternative(folder)}") from None


def load(folder: Path, task: nn.Module) -> tuple[Position, dict[str, Any]]:
    """Put a checkpoint's tensors into ``task``; returns its position and the optimiser's state.

    Raises:
        UserError: unusable (see :func:`read_position`), or made by a task of another shape.
    """
    position = read_position(folder)
    try:
        tensors: dict[str, Any] = load_file(folder / _FILES[0])
        optimizer = torch.load(folder / _FILES[1], map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder} cannot be read ({_first_line(error)}).{_alternative(folder)}") from None
    try:
        task.load_state_dict(tensors | position.extra)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{folder} does not fit this configuration: {_mismatch(error)}") from None
    return position, optimizer


def prune(folder: Path, keep: int, spare: Collection[str] = ()) -> None:
    """Delete all but the newest ``keep`` checkpoints (0: none is deleted) and those named in ``spare``."""
    if keep <= 0:
        return
    for path in list_checkpoints(folder)[:-keep]:
        if path.name not in spare:
            doomed = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.replace(doomed)  # first out of sight, so that no reader opens one that is being deleted
            shutil.rmtree(doomed, ignore_errors=True)


def set_aside(folder: Path, step: int) -> None:
    """Rename checkpoints beyond ``step`` to ``old-step-…``: a run that goes on from an earlier one outdates them."""
    for path in list_checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            aside = path.with_name(f"old-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.replace(aside)


def sweep(folder: Path) -> None:
    """Remove what an interrupted write or deletion left behind."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        if path.suffix in (".tmp", ".old"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _split(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, each with storage of its own, and the rest."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        tensor = value.detach().to("cpu").contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        tensors[name] = tensor if whole and pointer not in seen else tensor.clone()  # tied weights, slices
        seen.add(pointer)
    return tensors, {k: v for k, v in state.items() if not isinstance(v, Tensor)}


def _check_json(extra: dict[str, Any]) -> None:
    for name, value in extra.items():
        try:
            faithful = json.loads(json.dumps(value)) == value
        except (TypeError, ValueError):
            faithful = False
        if not faithful:
            raise UserError(
                f"'{name}' cannot be saved: extra state must be tensors or JSON, not {type(value).__name__}"
            )


def _fingerprint(path: Path) -> dict[str, int]:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return {"bytes": path.stat().st_size, "crc32": checksum}


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _replace(temporary: Path, folder: Path) -> None:
    """Rename over an existing folder too (a folder that is not empty cannot be replaced directly)."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _read_position(folder: Path) -> Position:
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a checkpoint: state.json is missing") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise UserError(f"{path} has checkpoint format {found!r}; this version reads format {FORMAT}")
    try:
        files = state["files"]
        position = Position(**{k: v for k, v in state.items() if k not in ("format", "files")})
        expected = {name: files[name] for name in _FILES}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is incomplete ({_first_line(error)})") from None
    if not all(isinstance(count, int) for count in (position.step, position.stage, position.index)):
        raise UserError(f"{path} is incomplete (step, stage and index are whole numbers)")
    for name, fingerprint in expected.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing")
        if _fingerprint(folder / name) != fingerprint:
            raise UserError(f"{folder / name} is damaged (its size or checksum is not the one recorded)")
    return position


def _alternative(folder: Path) -> str:
    """A sentence that names the newest other checkpoint that can be used."""
    for path in reversed(list_checkpoints(folder.parent)):
        if path != folder:
            try:
                _read_position(path)
            except UserError:
                continue
            return f" The newest usable checkpoint is {path}."
    return " There is no other usable checkpoint beside it."


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _mismatch(error: BaseException) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
    more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
    return ("; ".join(lines[:3]) or _first_line(error)) + more
