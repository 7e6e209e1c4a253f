"""The code that made a run, kept in its folder: what shipped by version and commit, what did not as files.

``code/code.json`` names Maquette's version and, in a git checkout, its commit; ``checkout.diff`` is what was changed
since, and ``files/`` what git does not know. Plugins from elsewhere, or in the checkout without being in git (ignored
files too), lie under ``plugins/NAME/``. Large and binary files are named with their size and hash. A run that goes on
with other code gets a further folder.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from core import __version__
from core.registry import PluginInfo

ROOT = Path(__file__).resolve().parents[1]
"""Where ``core`` lies: a checkout, or the folder of installed packages."""
_OURS = ("core", "plugins", "configs", "launch.py")
_TEXT = {
    ".py",
    ".pyi",
    ".yaml",
    ".yml",
    ".json",
    ".toml",
    ".cfg",
    ".txt",
    ".md",
    ".cu",
    ".cuh",
    ".cpp",
    ".h",
    ".glsl",
    "",
}
_FILE, _WHOLE, _HASHED = 256 << 10, 4 << 20, 16 << 20


def keep_code(run_folder: Path, plugins: Iterable[PluginInfo], step: int = 0) -> Path | None:
    """Write the snapshot; None where the run has the same one already.

    Args:
        plugins: those that are loaded.  step: where the run stands.
    """
    found = _Collected()
    record: dict[str, Any] = {"maquette": __version__, "plugins": []}
    tracked = _checkout(found, record)
    for plugin in plugins:
        root = _place(plugin)
        if root is None or _shipped(root, tracked):
            continue
        found.add_tree(root, f"plugins/{plugin.name}")
        record["plugins"].append({"name": plugin.name, "version": plugin.version, "source": plugin.source})
    record["left_out"] = found.left_out
    record["digest"] = found.digest(record)
    before = [json.loads(p.read_text(encoding="utf-8")) for p in run_folder.glob("code*/code.json")]
    if any(old.get("digest") == record["digest"] for old in before):
        return None
    folder = run_folder / (f"code-step-{step:06d}" if before else "code")
    for name, content in {**found.files, "code.json": json.dumps(record, indent=1).encode()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


class _Collected:
    """Files to be kept, and what is only named: too large, or no text."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.left_out: dict[str, str] = {}
        self._room = _WHOLE

    def add(self, path: Path, name: str) -> None:
        size = path.stat().st_size
        if path.suffix.lower() in _TEXT and size <= min(_FILE, self._room):
            self.files[name] = path.read_bytes()
            self._room -= size
        elif size <= _HASHED:
            self.left_out[name] = f"{size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
        else:
            self.left_out[name] = f"{size} bytes"

    def add_tree(self, root: Path, name: str) -> None:
        if root.is_file():
            return self.add(root, f"{name}/{root.name}")
        for path in _files(root):
            self.add(path, f"{name}/{path.relative_to(root).as_posix()}")
        return None

    def digest(self, record: dict[str, Any]) -> str:
        whole = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
        for name in sorted(self.files):
            whole.update(name.encode() + b"\0" + hashlib.sha256(self.files[name]).digest())
        return whole.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).parts
        if path.is_file() and "__pycache__" not in inside and not any(part.startswith(".") for part in inside):
            yield path


def _checkout(found: _Collected, record: dict[str, Any]) -> set[Path] | None:
    """Note commit and changes of a git checkout; the files that git knows, None where there is no checkout."""
    commit = _git("rev-parse", "HEAD") if (ROOT / ".git").exists() else None
    if commit is None:
        return None
    record["commit"] = commit.strip()
    changes = (_git("diff", "HEAD", "--", *_OURS) or "").encode()
    if 0 < len(changes) <= _WHOLE:
        found.files["checkout.diff"] = changes
    elif changes:
        found.left_out["checkout.diff"] = f"{len(changes)} bytes, sha256 {hashlib.sha256(changes).hexdigest()}"
    tracked = {ROOT / name for name in (_git("ls-files", "--", "plugins") or "").splitlines()}
    for name in (_git("ls-files", "--others", "--exclude-standard", "--", *_OURS) or "").splitlines():
        if (ROOT / name).is_file():
            found.add(ROOT / name, f"files/{name}")
    return tracked


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def _place(plugin: PluginInfo) -> Path | None:
    """A plugin's folder (or its one file); None for what is built in or no longer to be found."""
    if plugin.source == "built-in" or not plugin.where:
        return None
    if plugin.source == "folder":
        folder = Path(plugin.where)
        return folder.resolve() if folder.is_dir() else None
    module = sys.modules.get(plugin.where.partition(":")[0])
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    alone = not getattr(module, "__package__", "")
    return Path(file).resolve() if alone else Path(file).resolve().parent


def _shipped(root: Path, tracked: set[Path] | None) -> bool:
    """Whether a plugin came with Maquette: its commit or its version says what it is."""
    if not root.is_relative_to(ROOT / "plugins"):
        return False
    return tracked is None or root / "plugin.py" in tracked
