"""Words learned by textual inversion (Gal et al. 2023), from the files that people share."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.errors import UserError

_ENDINGS = (".safetensors", ".bin", ".pt")


def read_tokens(file: Path) -> dict[str, Tensor]:
    """Words and their embeddings [n, D], one vector or several a word, of a file or of all files in a folder.

    Layouts: diffusers' (``{word: vector}``), and those of the web interfaces, where the word is the file's name or
    noted beside it (``emb_params``, ``string_to_param``). Nothing in a file is run.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    file = file.expanduser()
    if file.is_dir():
        files = sorted(f for f in file.iterdir() if f.suffix in _ENDINGS)
        if not files:
            raise UserError(f"tokens: the folder {file} holds no {', '.join(_ENDINGS)} file")
        return {word: vectors for inside in files for word, vectors in read_tokens(inside).items()}
    if not file.is_file():
        raise UserError(f"tokens: there is no file {file}")
    content = _content(file)
    if "clip_g" in content:
        raise UserError(f"{file} holds words for two text towers (Stable Diffusion XL), which are not read")
    if isinstance(content.get("string_to_param"), dict):
        content = {str(content.get("name") or file.stem): next(iter(content["string_to_param"].values()))}
    found = {(file.stem if word == "emb_params" else word): vectors for word, vectors in content.items()}
    wrong = [w for w, v in found.items() if not (isinstance(v, Tensor) and v.dim() in (1, 2) and v.is_floating_point())]
    if wrong or not found:
        raise UserError(f"{file} holds no learned words: expected embeddings by word, found {wrong or 'nothing'}")
    return {word: vectors.float().view(-1, vectors.shape[-1]) for word, vectors in found.items()}


def _content(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{file} cannot be read as learned words: it is damaged or of another kind") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no learned words: expected embeddings by word")
    return content
