"""Every way in which a plugin can be wrong stays its own affair; every way to be found works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import discovery
from core.errors import UserError
from core.registry import PluginInfo, Registry

HEAD = "from core import hookimpl\n"
ADD = "    registry.add('geometry', '{name}', 'collections:OrderedDict', 'a thing')\n"
REGISTER = "@hookimpl\ndef register(registry):\n"
GOOD = HEAD + "API = 1\n" + REGISTER + ADD


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "plugin.py").write_text(text)
    return folder


def found(folder: Path, **switches: object) -> Registry:
    return discovery.load_registry([folder], entry_points=False, env=False, **switches)  # type: ignore[arg-type]


def status(registry: Registry, name: str) -> PluginInfo:
    info = registry.plugin(name)
    assert info is not None
    return info


BROKEN = {
    "import-error": ("import no_such_module_xyz\n", "ModuleNotFoundError: No module named 'no_such_module_xyz'"),
    "syntax-error": ("def (:\n", "SyntaxError"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "no-api": (HEAD + REGISTER + ADD, "it declares no API version; write API = 1"),
    "wrong-api": (GOOD.replace("API = 1", "API = 99"), "it was written for plugin API 99, this is API 1"),
    "misspelt-hook": (GOOD + "@hookimpl\ndef on_stpe(run):\n    pass\n", "unknown hook 'on_stpe'"),
    "wrong-argument": (GOOD + "@hookimpl\ndef on_step(run, stp):\n    pass\n", "stp"),
    "unmarked-hook": (GOOD + "def on_step(run):\n    pass\n", "'on_step' is not marked @hookimpl"),
    "register-raises": (GOOD + "    raise RuntimeError('boom')\n", "RuntimeError: boom"),
    "bad-kind": (GOOD + "    registry.add('shape', 'a', 'm:X', 'd')\n", "'shape' is not a kind"),
    "bad-signal": (GOOD + "    registry.add('score', 'a', 'm:X', 'd', needs=['rgbb'])\n", "Did you mean 'rgb'"),
    "declared-twice": (GOOD + ADD, "declared twice"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_reported_rolled_back_and_alone(case: str, tmp_path: Path) -> None:
    text, reason = BROKEN[case]
    write(tmp_path, case, text.format(name="lost"))
    write(tmp_path, "aaa-before", GOOD.format(name="before"))
    write(tmp_path, "zzz-after", GOOD.format(name="after"))
    registry = found(tmp_path)
    info = status(registry, case)
    assert info.status == "failed" and reason in info.reason
    assert {e.name for e in registry.entries("geometry")} == {"before", "after"}
    assert not registry.manager.has_plugin(case)
    with pytest.raises(UserError, match="did not load"):
        registry.find("geometry", "lost")


@pytest.mark.parametrize("case", BROKEN)
def test_strict_raises_with_the_plugins_name(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, case, BROKEN[case][0].format(name="lost"))
    monkeypatch.setenv("MAQUETTE_STRICT", "1")
    with pytest.raises(UserError, match=f"plugin '{case}'"):
        found(tmp_path)


def test_hooks_of_a_failed_plugin_are_not_called(tmp_path: Path) -> None:
    loud = GOOD + "    raise RuntimeError\n@hookimpl\ndef on_finish(run):\n    run.append('loud')\n"
    quiet = GOOD + "@hookimpl\ndef on_finish(run):\n    run.append('quiet')\n"
    write(tmp_path, "loud", loud.format(name="a"))
    write(tmp_path, "quiet", quiet.format(name="b"))
    heard: list[str] = []
    found(tmp_path).hooks.on_finish(run=heard)
    assert heard == ["quiet"]


def test_a_second_plugin_of_the_same_name_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "twin", GOOD.format(name="first"))
    write(two, "twin", GOOD.format(name="second"))
    registry = discovery.load_registry([one, two], entry_points=False, env=False)
    assert [p.status for p in registry.plugins if p.name == "twin"] == ["loaded", "failed"]
    assert "already taken by" in registry.plugins[-1].reason
    assert [e.name for e in registry.entries("geometry")] == ["first"]


def test_dashes_and_underscores_are_one_name(tmp_path: Path) -> None:
    write(tmp_path, "my-plugin", GOOD.format(name="a"))
    write(tmp_path, "my_plugin", GOOD.format(name="b"))
    registry = found(tmp_path)
    assert [p.status for p in registry.plugins if p.name == "my-plugin"] == ["loaded", "failed"]
    assert registry.find("geometry", "my_plugin/a").plugin == "my-plugin"


def test_folders_do_not_collide_and_sys_path_is_untouched(tmp_path: Path) -> None:
    before = list(sys.path)
    for name in ("left", "right"):
        text = GOOD.replace("collections:OrderedDict", f"plugins.{name}.helpers:VALUE").format(name=name)
        write(tmp_path, name, text)
        (tmp_path / name / "helpers.py").write_text(f"VALUE = {name!r}\n")
    registry = found(tmp_path)
    assert [registry.find("geometry", n).load() for n in ("left", "right")] == ["left", "right"]
    assert sys.path == before


def test_a_plugin_folder_itself_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, "solo", GOOD.format(name="a"))
    assert status(found(tmp_path / "solo"), "solo").status == "loaded"


def test_a_blocked_plugin_is_never_imported(tmp_path: Path) -> None:
    mark = tmp_path / "imported"
    write(tmp_path, "loud", f"open({str(mark)!r}, 'w')\n" + GOOD.format(name="a"))
    assert status(found(tmp_path, blocked=["loud"]), "loud").status == "blocked"
    assert not mark.exists()


def test_the_core_cannot_be_blocked(tmp_path: Path) -> None:
    assert status(found(tmp_path, blocked=["core"]), "core").status == "loaded"


def test_the_environment_names_folders_and_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "folders", "by-path", GOOD.format(name="path"))
    (tmp_path / "by_module_xyz").mkdir()
    (tmp_path / "by_module_xyz" / "plugin.py").write_text(GOOD.format(name="module"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MAQUETTE_PLUGIN_PATH", f"{tmp_path / 'folders'}:{tmp_path / 'absent'}")
    monkeypatch.setenv("MAQUETTE_PLUGINS", "by_module_xyz.plugin, no_such_module_xyz")
    registry = discovery.load_registry(entry_points=False)
    assert status(registry, "by-path").source == "folder"
    assert status(registry, "by-module-xyz").source == "environment"
    assert "there is no folder" in status(registry, "absent").reason
    assert status(registry, "no-such-module-xyz").status == "failed"
    plain = discovery.load_registry(entry_points=False, env=False)
    assert plain.plugin("by-path") is None and plain.plugin("by-module-xyz") is None


def test_entry_points_are_found_with_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "by_entry_xyz.py").write_text(GOOD.format(name="entry"))
    info = tmp_path / "by_entry_xyz-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: by-entry-xyz\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[maquette.plugins]\nby_entry = by_entry_xyz\nbad = no_such_module_xyz\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = discovery.load_registry([], env=False)
    assert (status(registry, "by-entry").version, status(registry, "by-entry").source) == ("2.5", "entry point")
    assert status(registry, "bad").status == "failed"
    assert discovery.load_registry([], entry_points=False, env=False).plugin("by-entry") is None


def test_importing_torch_at_registration_is_noted(tmp_path: Path) -> None:
    write(tmp_path, "heavy", "import torch\n" + GOOD.format(name="a"))
    (tmp_path / "torch.py").touch()  # a stand-in: the real one takes seconds
    root = str(Path(discovery.__file__).resolve().parents[1])
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    code = (
        "from core.discovery import load_registry; from pathlib import Path\n"
        f"print(load_registry([Path({str(tmp_path)!r})], False, False).plugin('heavy').note)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert out.stdout.strip() == "imports torch at registration"


def test_configure_shapes_the_cached_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "extra-one", GOOD.format(name="a"))
    monkeypatch.setenv("MAQUETTE_PLUGIN_PATH", str(tmp_path))
    try:
        discovery.configure()
        assert discovery.get_registry() is discovery.get_registry()
        assert status(discovery.get_registry(), "extra-one").status == "loaded"
        discovery.configure(blocked=["extra_one"])
        assert status(discovery.get_registry(), "extra-one").status == "blocked"
        discovery.configure(external=False)
        assert discovery.get_registry().plugin("extra-one") is None
    finally:
        discovery.configure()


def test_what_ships_loads_in_strict_mode_and_every_target_exists() -> None:
    registry = discovery.load_registry(entry_points=False, env=False, strict=True)
    for entry in registry.entries():
        if entry.extra is None:
            entry.load()
