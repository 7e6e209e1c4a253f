"""What text towers say of a sentence, and where it is kept: each text is encoded once per model, not once per run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("maquette")

Said = dict[str, Tensor]
"""Tensors of one text by name, without a batch dimension."""


class TextCache:
    """Embeddings in memory and, where ``folder`` is given, on disk: one safetensors file a text.

    Args:
        identity: what, beside the text, decides an embedding; any JSON.
    """

    def __init__(self, folder: Path | None, identity: Any) -> None:
        self.folder, self.identity = folder, identity
        self._said: dict[str, Said] = {}

    def get(self, text: str, encode: Callable[[str], Said], device: torch.device) -> Said:
        """What the text says, from memory, from disk, or by ``encode``; on ``device``."""
        if text not in self._said:
            said = self._read(text)
            if said is None:
                said = encode(text)
                self._write(text, said)
            self._said[text] = {name: value.to(device) for name, value in said.items()}
        return self._said[text]

    def path(self, text: str) -> Path | None:
        """Where a text's embedding is kept; None where nothing is."""
        if self.folder is None:
            return None
        key = json.dumps([self.identity, text], sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _read(self, text: str) -> Said | None:
        from safetensors.torch import load_file

        path = self.path(text)
        if path is None or not path.is_file():
            return None
        try:
            return load_file(path)
        except Exception as error:  # a cache is no reason to fail: the text is encoded again
            log.warning("the cached embedding %s cannot be read (%s); the text is encoded again", path, error)
            return None

    def _write(self, text: str, said: Said) -> None:
        from safetensors.torch import save_file

        path = self.path(text)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            os.close(handle)
            save_file({key: value.detach().cpu().contiguous() for key, value in said.items()}, name)
            Path(name).replace(path)
        except OSError as error:  # a full disk, a folder that is not ours
            log.warning("embeddings cannot be kept in %s: %s", path.parent, error)


def padded_ids(tokenizer: Any, text: str, length: int) -> tuple[Tensor, Tensor]:
    """Token ids [1, L] and mask [1, L] of one text, padded or, with a warning, cut to ``length``."""
    found = tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    count = len(tokenizer(text, truncation=False, verbose=False).input_ids)
    if count > length:
        log.warning("the prompt has %d tokens and this encoder hears the first %d: '%.60s…'", count, length, text)
    return found.input_ids, found.attention_mask


def clip_windows(tokenizer: Any, text: str, length: int) -> Tensor:
    """Token ids [W, L] of one text for CLIP: windows of at most ``length - 2`` tokens, each with its own begin and end.

    A text that fits has one window, as the tokenizer pads it. CLIP hears every window alone, and cross-attention all of
    them side by side.
    """
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    step = length - 2
    pieces = [ids[k : k + step] for k in range(0, len(ids), step)] or [[]]
    if len(pieces) > 1:
        log.info("the prompt has %d tokens: CLIP hears it in %d windows of %d", len(ids), len(pieces), step)
    rows = []
    for piece in pieces:
        row = [tokenizer.bos_token_id, *piece, tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    return torch.tensor(rows)


def clip_length(tokenizer: Any, tower: Any) -> int:
    """How many tokens CLIP hears at once."""
    return int(min(tokenizer.model_max_length, tower.config.max_position_embeddings))


def penultimate(tower: Any, ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """CLIP's states [W, L, D] before its last layer, and its projected embedding [W, E] where it has a projection."""
    found = tower(ids, output_hidden_states=True)
    return found.hidden_states[-2], getattr(found, "text_embeds", None)
