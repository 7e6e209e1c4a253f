"""A byte-pair vocabulary of our own, in CLIPTokenizer's files (``vocab.json``, ``merges.txt``).

Trained on the captions of the procedural objects, so every word of theirs is one token. Other words fall apart into
letters that the text tower never saw in training; ``unknown_words`` names them so that a user is warned.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

MAX_LENGTH = 24
_WORD = re.compile(r"[a-z]+")


def train_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int = 2000) -> Any:
    """Learn merges from ``texts``, write the folder, return the ``CLIPTokenizer``; also writes ``words.json``."""
    from transformers import CLIPTokenizer

    corpus = sorted(set(texts))
    words = sorted({w for text in corpus for w in _WORD.findall(text.lower())})
    if _has_words(folder, words):  # weights refer to its ids: a resumed or rebuilt fit must find the same ones
        return CLIPTokenizer.from_pretrained(folder)
    letters, counts = _pieces(corpus)
    merges: Any = _merges(counts, vocab_size - 2 * len(letters) - 2)
    vocab = _number(letters, merges)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    (folder / "words.json").write_text(json.dumps(words))
    return tokenizer


def _pieces(corpus: list[str]) -> tuple[list[str], Counter[str]]:
    """The byte-level letters, and how often each word of the corpus stands in it, written in them."""
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts = Counter(word for text in corpus for word, _ in split.pre_tokenize_str(text.lower()))
    return sorted(pre_tokenizers.ByteLevel.alphabet()), counts


def _merges(counts: Counter[str], limit: int) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al. 2016), the most frequent pair first, ties in alphabetical order.

    The tokenizers library breaks ties by a hash that differs from run to run, and ids must not.
    """
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: _joined(parts, best) for word, parts in words.items()}
    return merges


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


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
