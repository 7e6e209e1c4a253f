"""A prompt in a file: read into the job, so that the run's own folder holds the sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config.loading import load_job
from core.discovery import get_registry
from core.prompt_file import read_prompt


def test_a_prompt_file_becomes_the_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("a wooden chair,\n  with four legs: old\n", encoding="utf-8-sig")
    job = load_job("text-to-3d", [], get_registry(), {"prompt": f"@{file}"})
    assert job.stages[0].task.options.prompt == "a wooden chair, with four legs: old"
    assert job.resolved["prompt"] == "a wooden chair, with four legs: old"
    assert read_prompt("a chair @ home") == "a chair @ home"


@pytest.mark.parametrize(("content", "told"), [(b"", "is empty"), (b"\xff\xfe\x00a", "not UTF-8"), (b"a\x00b", "binary")])
def test_files_without_a_text_are_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_prompt(f"@{tmp_path / 'p.txt'}")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_prompt(f"@{tmp_path}")
