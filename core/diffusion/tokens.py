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
_TOWERS = ("clip_l", "clip_g")
_ALSO = {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}  # as pivotal tuning writes them


def read_tokens(file: Path) -> dict[str, Tensor]:
    """Words and their embeddings [n, D], one vector or several a word, of a file or of all files in a folder.

    Layouts: diffusers' (``{word: vector}``), and those of the web interfaces, where the word is the file's name or
    noted beside it (``emb_params``, ``string_to_param``). Nothing in a file is run.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    if file.expanduser().is_dir():
        return {word: vectors for inside in _files(file) for word, vectors in read_tokens(inside).items()}
    content = _content(*_files(file))
    if _TOWERS[1] in content:
        raise UserError(f"{file} holds words for two text towers (Stable Diffusion XL); they are for the prior sdxl")
    if isinstance(content.get("string_to_param"), dict):
        content = {str(content.get("name") or file.stem): next(iter(content["string_to_param"].values()))}
    found = {(file.stem if word == "emb_params" else word): vectors for word, vectors in content.items()}
    wrong = [w for w, v in found.items() if not (isinstance(v, Tensor) and v.dim() in (1, 2) and v.is_floating_point())]
    if wrong or not found:
        raise UserError(f"{file} holds no learned words: expected embeddings by word, found {wrong or 'nothing'}")
    return {word: vectors.float().view(-1, vectors.shape[-1]) for word, vectors in found.items()}


def read_paired_tokens(file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """As :func:`read_tokens`, for two text towers heard side by side (Stable Diffusion XL): embeddings [n, D1] and
    [n, D2] by word, which is the file's name; the layout is ``clip_l`` and ``clip_g``.

    Raises:
        UserError: a file is missing, damaged, of one tower, or its word is not of as many tokens in both.
    """
    found = {}
    for inside in _files(file):
        content = {_ALSO.get(name, name): value for name, value in _content(inside).items()}
        pair = [content.get(name) for name in _TOWERS]
        if not all(isinstance(v, Tensor) and v.dim() in (1, 2) and v.is_floating_point() for v in pair):
            raise UserError(f"{inside} holds no words for two text towers: expected embeddings {' and '.join(_TOWERS)}")
        first, second = (v.float().view(-1, v.shape[-1]) for v in pair)  # type: ignore[union-attr]
        if len(first) != len(second):
            raise UserError(
                f"{inside}: the word is {len(first)} tokens of one text tower and {len(second)} of the other"
            )
        found[inside.stem] = (first, second)
    return found


@torch.no_grad()
def teach(tower: Any, tokenizer: Any, word: str, vectors: Tensor) -> list[str]:
    """Give a text tower a word of ``vectors`` [n, D]; the names of the n tokens that it is read as.

    Raises:
        UserError: the tower has that word already, or another width.
    """
    table = tower.get_input_embeddings()
    if vectors.shape[1:] != table.weight.shape[1:]:
        width = table.weight.shape[1]
        raise UserError(f"the token '{word}' has {vectors.shape[1]} numbers; this text tower takes {width}")
    names = [word, *(f"{word}_{k}" for k in range(1, len(vectors)))]
    if tokenizer.add_tokens(names) != len(names):
        raise UserError(f"'{word}' is a token of this text tower already; choose another placeholder")
    ids = tokenizer.convert_tokens_to_ids(names)
    tower.resize_token_embeddings(max(*ids, len(table.weight) - 1) + 1, mean_resizing=False)
    tower.get_input_embeddings().weight[ids] = vectors.to(table.weight)
    return names


def spelled(text: str, spellings: dict[str, str]) -> str:
    """A text with learned words of several tokens written out."""
    for word, names in spellings.items():
        text = text.replace(word, names)
    return text


def _files(file: Path) -> list[Path]:
    """The file, or all in a folder."""
    file = file.expanduser()
    if file.is_dir():
        files = sorted(f for f in file.iterdir() if f.suffix in _ENDINGS)
        if not files:
            raise UserError(f"tokens: the folder {file} holds no {', '.join(_ENDINGS)} file")
        return files
    if not file.is_file():
        raise UserError(f"tokens: there is no file {file}")
    return [file]


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
