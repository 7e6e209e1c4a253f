"""The registry's lookups and refusals, without any discovery."""

from __future__ import annotations

import pytest

from core.errors import UserError
from core.registry import KINDS, Entry, PluginInfo, Registrar, Registry
from core.signals import SIGNALS, missing


def filled(**plugins: list[tuple[str, str]]) -> Registry:
    registry = Registry()
    for plugin, names in plugins.items():
        registrar = Registrar(plugin)
        for kind, name in names:
            registrar.add(kind, name, "collections:OrderedDict", "a thing")
        registry.adopt(PluginInfo(plugin, "folder"), registrar.entries)
    return registry


def refusal(registry: Registry, kind: str, name: str) -> str:
    with pytest.raises(UserError) as caught:
        registry.find(kind, name)
    return str(caught.value)


def test_find_by_short_and_by_qualified_name() -> None:
    registry = filled(a=[("geometry", "ball")])
    entry = registry.find("geometry", "ball")
    assert entry.qualified == "a/ball"
    assert registry.find("geometry", "a/ball") is entry
    assert entry.load().__name__ == "OrderedDict"


def test_entries_are_sorted_by_kind_then_name() -> None:
    registry = filled(b=[("task", "t"), ("geometry", "z")], a=[("geometry", "y")])
    assert [e.name for e in registry.entries()] == ["y", "z", "t"]
    assert [e.name for e in registry.entries("geometry")] == ["y", "z"]


def test_near_miss_is_suggested() -> None:
    assert "Did you mean 'hash-grid'?" in refusal(filled(a=[("geometry", "hash-grid")]), "geometry", "hashgrid")


def test_unknown_kind_is_suggested() -> None:
    assert "Did you mean 'geometry'?" in refusal(Registry(), "geometri", "x")


def test_name_of_another_kind_is_pointed_out() -> None:
    assert "'sds' is a score." in refusal(filled(a=[("score", "sds")]), "loss", "sds")


def test_two_plugins_with_one_name_are_ambiguous_until_qualified() -> None:
    registry = filled(a=[("geometry", "ball")], b=[("geometry", "ball")])
    assert "write one of: a/ball, b/ball" in refusal(registry, "geometry", "ball")
    assert registry.find("geometry", "b/ball").plugin == "b"


def test_wrong_plugin_before_the_slash_names_the_right_one() -> None:
    assert "Write a/ball." in refusal(filled(a=[("geometry", "ball")], b=[]), "geometry", "b/ball")


def test_a_failed_plugin_that_offered_the_name_is_blamed() -> None:
    registry = filled(a=[("geometry", "ball")])
    registry.adopt(PluginInfo("bad", "folder", status="failed", reason="no luck", offers=(("geometry", "ring"),)))
    assert "Plugin 'bad' did not load: no luck." in refusal(registry, "geometry", "ring")
    assert "bad" not in refusal(registry, "geometry", "bal")  # a near miss needs no suspect


def test_a_blocked_plugin_is_a_suspect() -> None:
    registry = filled(a=[("geometry", "ball")])
    registry.adopt(PluginInfo("quiet", "folder", status="blocked", reason="switched off for this run"))
    assert "Plugin 'quiet' may provide it but is blocked" in refusal(registry, "geometry", "xyzzy")
    assert "Plugin 'quiet' is blocked" in refusal(registry, "geometry", "quiet/ball")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("shape", "a", "m:X", "d"), "'shape' is not a kind"),
        (("geometry", "Ball", "m:X", "d"), "lower-case"),
        (("geometry", "ball", "m.X", "d"), "'package.module:Object'"),
        (("geometry", "ball", "m:X()", "d"), "'package.module:Object'"),
        (("geometry", "ball", "m:X", " "), "one line"),
    ],
)
def test_registrar_refuses(arguments: tuple[str, str, str, str], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        Registrar("p").add(*arguments)


def test_registrar_refuses_unknown_signals_and_bare_strings() -> None:
    with pytest.raises(UserError, match="'normals' is not a signal. Did you mean 'normal'"):
        Registrar("p").add("score", "s", "m:X", "d", needs=["rgb|normals"])
    with pytest.raises(UserError, match="lists of signals"):
        Registrar("p").add("score", "s", "m:X", "d", needs="rgb")


def test_registrar_refuses_a_name_twice_in_one_kind_only() -> None:
    registrar = Registrar("p")
    registrar.add("score", "s", "m:X", "d")
    registrar.add("loss", "s", "m:X", "d")
    with pytest.raises(UserError, match="declared twice"):
        registrar.add("score", "s", "m:Y", "d")


@pytest.mark.parametrize(
    ("target", "extra", "fragment"),
    [
        ("no_such_module_xyz:A", "cuda", r'pip install "maquette\[cuda\]"'),
        ("collections:OrderedDit", None, "has no 'OrderedDit'. Did you mean 'OrderedDict'"),
    ],
)
def test_load_explains(target: str, extra: str | None, fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        Entry("geometry", "ball", target, "d", "p", extra=extra).load()


def test_suppliers_and_missing_signals() -> None:
    registry, registrar = Registry(), Registrar("p")
    registrar.add("renderer", "r", "m:X", "d", needs=["density|sdf"], gives=["rgb", "depth"])
    registry.adopt(PluginInfo("p", "folder"), registrar.entries)
    assert [e.name for e in registry.suppliers("depth")] == ["r"]
    assert missing(["density|sdf", "text"], ["sdf"]) == ["text"]


def test_kinds_and_signals_say_what_they_are() -> None:
    assert all(KINDS.values()) and all(SIGNALS.values())
