"""Pipelines that come as one file (``.safetensors`` or ``.ckpt``, in the layout of the original code): read once by
diffusers, and kept as a folder in its format."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from core.cache import cache_folder
from core.errors import UserError
from core.untrusted import read_tensors

_DENOISERS = ("model.diffusion_model.", "double_blocks.")
"""What the denoiser's tensors are called in files of Stable Diffusion, SDXL and SD3, and in FLUX's."""
_UNUSED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


def is_single_file(source: str) -> bool:
    """Whether a model is named by a file."""
    return Path(source).expanduser().is_file()


def as_folder(source: str, structure: str | None, pipelines: Iterable[str]) -> Path:
    """The folder that a file was, or is now, converted to; it lies in ``MAQUETTE_CACHE`` under ``converted``.

    Args:
        structure: a folder, or a name on the hub, whose configurations and tokenizers describe the file's networks.
        pipelines: the classes of diffusers that fit, the likeliest first.

    Raises:
        UserError: the file cannot be read, would run code, or holds something else; no structure is given.
    """
    import diffusers

    file = Path(source).expanduser()
    kind = next((p for p in pipelines if hasattr(getattr(diffusers, p, None), "from_single_file")), None)
    if kind is None:
        return file  # which is refused as no folder is
    if structure is None:
        raise UserError(
            f"{source} is a single file, which does not say how its networks are built; set structure to a folder "
            "or a hub's name with their configurations, of which no weights are read (structure=sd15)"
        )
    folder = cache_folder("converted", f"{file.stem}-{_key(file, structure)}")
    if not (folder / "model_index.json").is_file():
        _convert(file, folder, getattr(diffusers, kind), structure)
    return folder


def _key(file: Path, structure: str) -> str:
    """Changes with the file and with what describes it."""
    stat = file.stat()
    what = [str(file.resolve()), stat.st_size, stat.st_mtime_ns, structure]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


def _convert(file: Path, folder: Path, kind: Any, structure: str) -> None:
    """Read ``file`` and write ``folder``, which is there whole or not at all."""
    expected = f"expected a checkpoint of a {kind.__name__}"
    tensors = read_tensors(file, expected)
    if not any(key.startswith(_DENOISERS) for key in tensors):
        first = next(iter(tensors), "nothing")
        raise UserError(f"{file} holds no denoiser (its first tensor is {first}); {expected}")
    dtype = next(x.dtype for key, x in tensors.items() if key.startswith(_DENOISERS))
    made = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    made.mkdir(parents=True, exist_ok=True)
    try:
        plain = file
        if file.suffix != ".safetensors":  # diffusers would refuse what else a .ckpt holds
            plain = made / "tensors.safetensors"
            save_file({key: x.contiguous() for key, x in tensors.items()}, plain)
        del tensors
        pipeline = _read(kind, plain, structure, dtype, f"{file} does not fit {structure}")
        pipeline.save_pretrained(made / "folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        (made / "folder").replace(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _read(kind: Any, plain: Path, structure: str, dtype: Any, problem: str) -> Any:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for quieted in (diffusers_logging, transformers_logging):
        quieted.disable_progress_bar()  # it would break the status line
    before = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # it warns of precisions, and of nothing else that a user could change
    try:
        return kind.from_single_file(str(plain), config=structure, torch_dtype=dtype, **_UNUSED)
    except Exception as error:  # each of its converters has its own kinds, all of which mean the same here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{problem}: {reason}") from error
    finally:
        diffusers_logging.set_verbosity(before)
