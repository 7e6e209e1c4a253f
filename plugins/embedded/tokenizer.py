"""A byte-pair vocabulary of our own, in CLIPTokenizer's files (``vocab.json``, ``merges.txt``).

Trained on the captions of the procedural objects, so every word of theirs is one token. Other words fall apart into
letters that the text tower never saw in training; ``unknown_words`` names them so that a user is warned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_LENGTH = 24
_WORD = re.compile(r"[a-z]+")


def train_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int = 2000) -> Any:
    """Learn merges from ``texts``, write the folder, return the ``CLIPTokenizer``; also writes ``words.json``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    corpus = sorted(set(texts))
    words = sorted({w for text in corpus for w in _WORD.findall(text.lower())})
    if _has_words(folder, words):  # weights refer to its ids: a resumed or rebuilt fit must find the same ones
        return CLIPTokenizer.from_pretrained(folder)
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    vocab = _number(sorted(pre_tokenizers.ByteLevel.alphabet()), merges)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    (folder / "words.json").write_text(json.dumps(words))
    return tokenizer


def _has_words(folder: Path, words: list[str]) -> bool:
    path = folder / "words.json"
    return path.is_file() and (folder / "vocab.json").is_file() and json.loads(path.read_text()) == words


def _number(letters: list[str], merges: list[tuple[str, str]]) -> dict[str, int]:
    """Ids as in CLIP's own file: letters, letters that end a word, then merges in order; the same at every training.

    Every letter is there in both forms, so no word is without tokens.
    """
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    return {token: k for k, token in enumerate(dict.fromkeys([*tokens, *("".join(m) for m in merges)]))}


def unknown_words(text: str, known: Iterable[str]) -> list[str]:
    """The words of ``text`` that training never saw, in order, once each."""
    seen = set(known)
    return list(dict.fromkeys(w for w in _WORD.findall(text.lower()) if w not in seen))
