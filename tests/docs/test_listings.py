"""The listings of docs/plugins.md are extracted, put where they say they belong, and checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import core
from core import hookspecs
from core.discovery import load_registry
from core.registry import KINDS
from core.signals import SIGNALS
from core.testing import check_component

PAGE = (Path(core.__file__).resolve().parent.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
LISTING = re.compile(r"^```python\n# (plugins/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def listings() -> dict[str, str]:
    return dict(LISTING.findall(PAGE))


def test_every_listing_says_where_it_belongs() -> None:
    assert len(listings()) == PAGE.count("```python") == 4


@pytest.mark.parametrize(
    ("plugin", "kind", "name"), [("star", "geometry", "star"), ("classifier_score", "score", "classifier-only")]
)
def test_a_listing_keeps_its_contract(plugin: str, kind: str, name: str, tmp_path: Path) -> None:
    files = {path: text for path, text in listings().items() if path.startswith(f"plugins/{plugin}/")}
    assert sum(len(text.splitlines()) for text in files.values()) < 60
    for path, text in files.items():
        file = tmp_path / Path(path).relative_to("plugins")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    registry = load_registry([tmp_path], entry_points=False, env=False, strict=True)
    assert check_component(kind, name, registry)


def test_the_page_names_every_kind_signal_and_hook() -> None:
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    assert [kind for kind in KINDS if f"| `{kind}` |" not in PAGE] == []
    assert [signal for signal in SIGNALS if f"`{signal}`" not in PAGE] == []
    assert [hook for hook in hooks if f"`{hook}" not in PAGE] == []
