"""Checkpoint files of others, read without running anything in them and refused in one sentence where that fails."""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.errors import UserError

_FORBIDDEN = re.compile(
    r"(?:Unsupported global: GLOBAL|Unsupported class|Trying to load unsupported GLOBAL|unrecognized function) (\S+)"
)


class _Inert:
    """Stands for a training callback that a checkpoint names: it holds what was stored and does nothing."""


def _harmless() -> list[Any]:
    """What published files name besides tensors: the settings of a training (LSGM, LION), the class of the callback
    whose state they hold (Stable Diffusion 1.x, Zero-1-to-3), and numpy's scalars (that callback's best score)."""
    scalar: Any = np.float64(0).__reduce__()[0]
    callback = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    kinds = [type(np.dtype(t)) for t in ("f4", "f8", "i4", "i8", "?")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [(_Inert, callback), (_Inert, callback.replace("pytorch_lightning", "lightning.pytorch")), np.dtype, *kinds,
            *((scalar, name) for name in names), argparse.Namespace]  # fmt: skip


def read_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their keys: of a safetensors file, or of a PyTorch file's ``state_dict``.

    Args:
        expected: what the file should be, for the sentence that refuses it.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, or would run code.
    """
    start = _start(path, expected)
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        content = _unpickled(path, expected, mapped=start[:2] == b"PK")
    elif start[8:9] == b"{":
        content = _safetensors(path, expected)
    else:
        raise UserError(f"{path} is neither a PyTorch file nor a safetensors file; {expected}")
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    return {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}


def read_pickled(path: Path, expected: str) -> Any:
    """All that a PyTorch file holds.

    Raises:
        UserError: as :func:`read_tensors`.
    """
    _start(path, expected)
    return _unpickled(path, expected)


def _start(path: Path, expected: str) -> bytes:
    """The first bytes of a file that is there and is not empty."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    start = path.open("rb").read(16)
    if not start:
        raise UserError(f"{path} is empty (0 bytes); {expected}")
    return start


def _safetensors(path: Path, expected: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or damaged ({error}); {expected}") from error


def _unpickled(path: Path, expected: str, mapped: bool = False) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        named = _FORBIDDEN.search(str(error))
        if named is None and not re.search(r"Unsupported|unsupported|blocked|allowed", str(error)):
            raise UserError(f"{path} is truncated or damaged; {expected}") from error
        what = f"it names {named[1].rstrip('.')}" if named else "it holds more than tensors"
        raise UserError(f"{path} could run code when read ({what}), so it is refused; {expected}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{path} is truncated or damaged; {expected}") from error
