"""The code that made a run stays with it (D18): plugins from elsewhere, and what git does not know."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core import snapshot
from core.registry import PluginInfo
from core.snapshot import keep_code

PLUGIN = "from core import hookimpl\nAPI = 1\n"


def plugin(folder: Path, name: str, **files: str) -> PluginInfo:
    root = folder / name
    for file, text in {"plugin.py": PLUGIN, **files}.items():
        path = root / file.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return PluginInfo(name, "folder", "2.1", where=str(root))


def kept(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "code.json").read_text())
    return found


def test_a_plugin_of_the_user_is_kept_and_large_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "ROOT", tmp_path / "installed")  # no checkout
    mine = plugin(tmp_path / "mine", "star", **{"geometry.py": "x = 1\n", "deep__more.yaml": "a: 1\n"})
    root = Path(mine.where)
    (root / "weights.safetensors").write_bytes(bytes(1000))
    (root / "long.txt").write_text("x" * (300 << 10))
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "plugin.pyc").write_bytes(b"1")
    (tmp_path / "run").mkdir()
    folder = keep_code(
        tmp_path / "run", [mine, PluginInfo("tiny", "folder"), PluginInfo("core", "built-in", where="core")]
    )
    assert folder == tmp_path / "run" / "code"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {"code.json"} | {f"plugins/star/{n}" for n in ("plugin.py", "geometry.py", "deep/more.yaml")}
    assert (folder / "plugins/star/geometry.py").read_text() == "x = 1\n"
    record = kept(folder)
    assert record["plugins"] == [{"name": "star", "version": "2.1", "source": "folder"}] and "commit" not in record
    assert set(record["left_out"]) == {"plugins/star/weights.safetensors", "plugins/star/long.txt"}
    assert record["left_out"]["plugins/star/weights.safetensors"].startswith("1000 bytes, sha256 541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53")  # fmt: skip

    assert keep_code(tmp_path / "run", [mine], step=5) is None  # the same code
    (root / "geometry.py").write_text("x = 2\n")
    later = keep_code(tmp_path / "run", [mine], step=5)
    assert later == tmp_path / "run" / "code-step-000005" and kept(later)["digest"] != record["digest"]
    assert (folder / "plugins/star/geometry.py").read_text() == "x = 1\n"


def test_of_a_checkout_its_commit_its_changes_and_what_git_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkout"
    shipped = plugin(root / "plugins", "nerf")
    (root / "core").mkdir()
    (root / "core" / "loop.py").write_text("one\n")
    (root / ".gitignore").write_text("plugins/hidden/\n")

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    monkeypatch.setattr(snapshot, "ROOT", root)
    (root / "core" / "loop.py").write_text("two\n")
    (root / "core" / "new.py").write_text("three\n")
    hidden = plugin(root / "plugins", "hidden")  # as threestudio's custom/, which its own snapshot leaves out
    (tmp_path / "run").mkdir()
    folder = keep_code(tmp_path / "run", [shipped, hidden])
    assert folder is not None and kept(folder)["commit"] == git("rev-parse", "HEAD")
    changes = (folder / "checkout.diff").read_text()
    assert "-one" in changes and "+two" in changes
    assert (folder / "files/core/new.py").read_text() == "three\n"
    assert (folder / "plugins/hidden/plugin.py").read_text() == PLUGIN and not (folder / "plugins/nerf").exists()
