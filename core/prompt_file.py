"""Prompts that stand in a file: ``@FILE`` in a prompt's place."""

from __future__ import annotations

from pathlib import Path


def read_prompt(prompt: str) -> str:
    """A prompt as it is; of ``@FILE`` the text in that file, on one line.

    Raises:
        ValueError: the file is missing, empty, or holds no text.
    """
    if not prompt.startswith("@"):
        return prompt
    file = Path(prompt[1:]).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the prompt file {file} holds no text: it is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"the prompt file {file} cannot be read: {error.strerror}") from None
    if any(ord(c) < 32 and not c.isspace() for c in text):
        raise ValueError(f"the prompt file {file} holds no text: it is binary")
    if not text.strip():
        raise ValueError(f"the prompt file {file} is empty; write what to make into it")
    return " ".join(text.split())
