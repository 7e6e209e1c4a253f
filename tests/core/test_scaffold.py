"""What ``new-plugin`` writes works as it is: every kind, as a folder and as an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import core
from core.discovery import load_registry
from core.errors import UserError
from core.scaffold import TEMPLATED_KINDS, write_plugin
from core.testing import check_component

ROOT = Path(core.__file__).resolve().parent.parent


def component(name: str, kind: str) -> str:
    return f"bench-{name}" if kind == "command" else name


@pytest.mark.parametrize("kind", TEMPLATED_KINDS)
def test_every_kind_passes_its_check_unchanged(kind: str, tmp_path: Path) -> None:
    name = f"try-{kind}"
    written = write_plugin(name, kind, tmp_path)
    assert written.folder == tmp_path / f"try_{kind}"
    assert all(file.read_text().count("{{") == 0 for file in written.files)
    registry = load_registry([tmp_path], entry_points=False, env=False, strict=True)
    assert check_component(kind, component(name, kind), registry)


def test_the_written_test_passes_under_pytest(tmp_path: Path) -> None:
    folder = write_plugin("my-ball", "geometry", tmp_path).folder
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_written_test_can_fail(tmp_path: Path) -> None:
    folder = write_plugin("my-ball", "geometry", tmp_path).folder
    source = folder / "geometry.py"
    source.write_text(source.read_text().replace("return self.options.density *", "return -self.options.density *"))
    registry = load_registry([tmp_path], entry_points=False, env=False)
    with pytest.raises(UserError, match="not negative"):
        check_component("geometry", "my-ball", registry)


def test_a_package_installs_and_is_used_by_name(tmp_path: Path) -> None:
    folder = write_plugin("far-away", "score", tmp_path / "source", package=True).folder
    assert 'dependencies = ["maquette>=0.1,<0.2"]' in (folder / "pyproject.toml").read_text()
    place, environ = tmp_path / "site", {**os.environ, "PIP_NO_INDEX": "1"}
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(place), str(folder)], check=True, env=environ, capture_output=True)
    code = "import sys; from core.cli import main; sys.exit(main(['check', 'far-away', '--kind', 'score']))"
    environ["PYTHONPATH"] = os.pathsep.join([str(place), str(ROOT)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stderr
    assert "score far-away: " in done.stdout
    listing = [sys.executable, "-c", "from core.cli import main; main(['plugins'])"]
    shown = subprocess.run(listing, capture_output=True, text=True, cwd=tmp_path, env=environ).stdout
    assert any(line.split()[:4] == ["far-away", "0.1.0", "entry", "point"] for line in shown.splitlines())


def test_a_packages_own_test_passes_without_installing(tmp_path: Path) -> None:
    folder = write_plugin("far-away", "background", tmp_path, package=True).folder
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "kind", "fragment"),
    [
        ("My-Ball", "geometry", "cannot be a plugin's name"),
        ("class", "geometry", "cannot be a plugin's name"),
        ("ball", "renderer", "has no template"),
        ("ball", "geometri", "Did you mean 'geometry'"),
    ],
)
def test_refusals(name: str, kind: str, fragment: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=fragment):
        write_plugin(name, kind, tmp_path)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    write_plugin("ball", "geometry", tmp_path)
    with pytest.raises(UserError, match="already exists"):
        write_plugin("ball", "material", tmp_path)


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_plugin("one", "geometry").folder == Path("one")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "__init__.py").touch()
    assert write_plugin("two", "geometry").folder == Path("plugins/two")
    assert write_plugin("three", "geometry", package=True).folder == Path("three")
