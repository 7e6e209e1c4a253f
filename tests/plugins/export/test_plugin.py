"""The plugin's declarations, and each exporter held to the contract of its kind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.discovery import get_registry
from core.testing import check_component

SMALL = {
    "glb": {"resolution": 24, "texture": 64, "faces": 500},
    "obj": {"resolution": 24, "texture": 64, "faces": 500},
    "ply": {"resolution": 24},
    "preview": {"resolution": 24, "texture": 64, "faces": 500, "size": 32, "columns": 2},
    "video": {"frames": 2, "size": 32, "fit": False},
    "sheet": {"columns": 2, "size": 24, "fit": False},
    "gallery": {"size": 32, "fit": False},
}


def test_every_exporter_is_declared():
    names = {entry.name for entry in get_registry().entries("exporter") if entry.plugin == "export"}
    assert names == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_exporters_keep_their_contract(name):
    assert check_component("exporter", name, options=SMALL[name])


def test_declaring_imports_nothing_heavy():
    code = "import sys, plugins.export.plugin; print([m for m in ('torch', 'numpy', 'trimesh') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
