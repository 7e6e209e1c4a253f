"""The conformance tests pass what is sound and fail what is not, naming what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.discovery import load_registry
from core.errors import ConfigError, UserError
from core.registry import PluginInfo, Registrar, Registry
from core.testing import CheckFailed, check_component
from core.testing.reference import octasphere


def registry_of(kind: str, target: str, gives: tuple[str, ...] = ()) -> Registry:
    module = "core.testing.reference" if target.startswith("reference.") else "broken_components"
    registrar, registry = Registrar("broken"), Registry()
    name = "bench-x" if kind == "command" else "x"
    target = f"{module}:{target.removeprefix('reference.')}"
    needs = ["features"] if kind == "material" else []
    registrar.add(kind, name, target, "a thing", needs=needs, gives=gives)
    registry.adopt(PluginInfo("broken", "built-in"), registrar.entries)
    return registry


def check(kind: str, target: str, gives: tuple[str, ...] = ()) -> list[str]:
    return check_component(kind, "bench-x" if kind == "command" else "x", registry_of(kind, target, gives))


DENSITY = ("density", "features")
SOUND = [
    ("geometry", "Ball", DENSITY),
    ("geometry", "reference.Ball", (*DENSITY, "sdf", "mesh")),
    ("material", "reference.Paint", ()),
    ("background", "reference.Grey", ()),
    ("renderer", "reference.Marcher", ("rgb", "opacity", "depth")),
    ("prior", "reference.GaussianPrior", ()),
    ("score", "Sds", ()),
    ("data", "Ring", ("camera",)),
    ("prompt", "Echo", ()),
    ("exporter", "Writes", ()),
    ("metric", "Counts", ()),
    ("listener", "Listens", ()),
    ("command", "bench", ()),
    ("loss", "loss", ()),
    ("task", "Tune", ()),
]


@pytest.mark.parametrize(("kind", "target", "gives"), SOUND)
def test_a_sound_component_passes(kind: str, target: str, gives: tuple[str, ...]) -> None:
    assert len(check(kind, target, gives)) >= 4


BROKEN = [
    ("geometry", "Negative", DENSITY, "finite and not negative"),
    ("geometry", "Column", DENSITY, "found [257, 1] for N = 257"),
    ("geometry", "Torn", DENSITY, "density() agrees with field()"),
    ("geometry", "Detached", DENSITY, "density depends on its parameters"),
    ("geometry", "NotFinite", DENSITY, "finite outside the scene's cube"),
    ("geometry", "Crowded", DENSITY, "does not depend on others"),
    ("geometry", "GlobalInit", DENSITY, "Context.generator alone"),
    ("geometry", "Forgotten", DENSITY, "covers every trainable parameter"),
    ("geometry", "Raises", DENSITY, "RuntimeError: no luck (broken_components.py:"),
    ("geometry", "BadMesh", (*DENSITY, "mesh"), "index its vertices"),
    ("geometry", "Ball", (*DENSITY, "sdf"), "has no signed distance"),
    ("geometry", "Ball", (), "declared: nothing"),
    ("geometry", "Silent", DENSITY, "none under: radius"),
    ("geometry", "LooseOptions", DENSITY, "derived from core.Config"),
    ("geometry", "reference.Grey", DENSITY, "subclass of core.Geometry"),
    ("material", "Bright", (), "in [0, 1]"),
    ("material", "Faded", (), "depends on the features that it needs"),
    ("background", "FlatSky", (), "colours of that shape"),
    ("background", "Unfinished", (), "missing: forward"),
    ("renderer", "NoBackground", ("rgb",), "background is seen in the corner"),
    ("renderer", "Restless", ("rgb",), "two renders without a step are equal"),
    ("renderer", "Backwards", ("rgb",), "the side towards +x is seen"),
    ("renderer", "reference.Marcher", ("normal",), "normal is given"),
    ("prior", "BlindPrior", (), "encode is differentiable"),
    ("prior", "DimPrior", (), "decode gives is in [0, 1]"),
    ("prior", "DicePrior", (), "predict gives the same twice"),
    ("score", "PushesAway", (), "points towards the prior's mean"),
    ("score", "GlobalNoise", (), "step's streams alone"),
    ("score", "PerPicture", (), "scalar"),
    ("score", "Leaks", (), "reached: gain"),
    ("data", "GlobalRing", (), "step's streams alone"),
    ("data", "LeftHanded", (), "right-handed"),
    ("data", "LooksAway", (), "in front of every camera"),
    ("data", "NoCameras", (), "keys: ['image']"),
    ("prompt", "OneText", (), "5 cameras give 5 texts; found 1"),
    ("prompt", "NoText", (), "something in it"),
    ("exporter", "Unnamed", (), "not named: b.txt"),
    ("exporter", "Absent", (), "missing: c.txt"),
    ("exporter", "Outside", (), "into the given folder only"),
    ("exporter", "Empty", (), "empty: a.txt"),
    ("metric", "NotANumber", (), "finite float"),
    ("metric", "TensorValue", (), "finite float"),
    ("listener", "Misspelt", (), "no hook is called on_stpe"),
    ("listener", "TooMany", (), "the hook has no losses"),
    ("listener", "Deaf", (), "at least one hook"),
    ("command", "bare", (), "not: size"),
    ("command", "Ball", (), "the target is a function"),
    ("loss", "loss_per_pixel", (), "scalar"),
    ("loss", "loss_detached", (), "differentiable"),
    ("task", "TuneGlobally", (), "step's streams alone"),
    ("task", "TuneVector", (), "found {'distance': [3]}"),
    ("task", "TunePicture", (), "uint8 [H, W, 3]"),
]


@pytest.mark.parametrize(("kind", "target", "gives", "fragment"), BROKEN)
def test_a_broken_component_fails(kind: str, target: str, gives: tuple[str, ...], fragment: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        check(kind, target, gives)
    assert fragment in str(caught.value)
    assert str(caught.value).startswith(f"{kind} 'broken/")


def test_unknown_components_and_options_are_users_mistakes() -> None:
    registry = registry_of("geometry", "Ball", DENSITY)
    with pytest.raises(UserError, match="no geometry named 'y'"):
        check_component("geometry", "y", registry)
    with pytest.raises(ConfigError, match="levels"):
        check_component("geometry", "x", registry, {"levels": 3})


@pytest.mark.parametrize(("imports", "sound"), [("import json", True), ("import torch", False)])
def test_a_plugin_that_imports_torch_at_registration_fails(
    tmp_path: Path, imports: str, sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stand-in").mkdir()
    (tmp_path / "stand-in" / "torch.py").touch()  # for the fresh interpreter; the real one takes seconds
    monkeypatch.syspath_prepend(str(tmp_path / "stand-in"))
    (tmp_path / "heavy").mkdir()
    lines = [imports, "from core import hookimpl", "API = 1", "@hookimpl", "def register(registry):"]
    lines.append("    registry.add('background', 'x', 'core.testing.reference:Grey', 'grey')")
    (tmp_path / "heavy" / "plugin.py").write_text("\n".join(lines) + "\n")
    registry = load_registry([tmp_path], entry_points=False, env=False)
    if sound:
        assert check_component("background", "x", registry)
    else:
        with pytest.raises(CheckFailed, match="does not import torch"):
            check_component("background", "x", registry)


def test_the_reference_sphere_is_closed_and_faces_outwards() -> None:
    vertices, faces = octasphere(2)
    assert len(vertices) - 3 * len(faces) // 2 + len(faces) == 2  # Euler: V - E + F
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = (b - a).cross(c - a, dim=-1)
    assert bool(((normals * (a + b + c)).sum(-1) > 0).all())
