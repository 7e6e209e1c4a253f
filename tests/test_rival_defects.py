"""Defects known from elsewhere, as regression tests of what no single folder's tests cover, and the share of pasted code.

Of geometries: D1, D14 and D15 are in ``tests/plugins/sdf``, D2 and D13 in ``tests/plugins/nerf``, D3, D9, D10, D11 and D17
in ``tests/plugins/splats``. D4, D5, D6 and D16 of scores are in ``tests/plugins/score``, D8 of whole runs in
``tests/core/test_job.py``, D19 in ``tests/core/test_registry.py``.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts import Context, Geometry, Step
from core.discovery import get_registry
from core.testing import reference
from core.testing.check import make_options

ROOT = Path(__file__).resolve().parents[1]
BLOCK = 6


def code_lines(text: str) -> list[str]:
    """Lines without white space, comments, docstrings, imports and blank lines."""
    tree, skipped = ast.parse(text), set[int]()
    for node in ast.walk(tree):
        docstring = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [re.sub(r"\s+", "", re.sub(r"(^|\s)#.*", "", line)) for line in text.splitlines()]
    return [line for number, line in enumerate(lines, 1) if line and number not in skipped]


def pasted(files: dict[str, str]) -> tuple[int, int]:
    """(lines in blocks of six or more that another file has too, all lines)."""
    lines = {name: code_lines(text) for name, text in files.items()}
    where = defaultdict(set)
    for name, own in lines.items():
        for k in range(len(own) - BLOCK + 1):
            where[tuple(own[k : k + BLOCK])].add(name)
    shared = 0
    for own in lines.values():
        hit = {
            k + j
            for k in range(len(own) - BLOCK + 1)
            if len(where[tuple(own[k : k + BLOCK])]) > 1
            for j in range(BLOCK)
        }
        shared += len(hit)
    return shared, sum(map(len, lines.values()))


def test_the_measure_of_pasted_code() -> None:
    block = "\n".join(f"value_{k} = {k}" for k in range(6))
    assert pasted({"a": block, "b": "import os\n# note\n" + block.replace(" = ", "=")}) == (12, 12)
    assert pasted({"a": block, "b": block.replace("3", "9")}) == (0, 12)


def test_priors_and_scores_are_not_pasted() -> None:
    """Less than 5 % of the lines stand in six-line blocks shared with another file (61.8 % in threestudio's guidance)."""
    entries = [e for kind in ("prior", "score") for e in get_registry().entries(kind)]
    folders = {e.target.partition(":")[0].rpartition(".")[0].replace(".", "/") for e in entries}
    folders = {folder for folder in folders if folder.startswith("plugins/")}
    assert {"plugins/score", "plugins/stable_diffusion"} <= folders
    files = {str(p.relative_to(ROOT)): p.read_text() for f in folders for p in sorted((ROOT / f).glob("*.py"))}
    shared, total = pasted(files)
    print(f"{shared} of {total} lines in {len(files)} files stand in shared blocks: {shared / total:.1%}")
    assert shared < 0.05 * total


@pytest.mark.parametrize("index", [0, 4999, 5000, 9999])
def test_views_follow_from_the_step_alone(index: int) -> None:
    """D7, D8: the first batch after a resume has that step's resolution and views, whatever was drawn before."""
    entry = get_registry().find("data", "random-cameras").load()
    options = entry.Config(size={"points": {0: 64, 4999: 64, 5000: 512}}, batch=2)
    seen = []
    for before in ([], range(3)):
        source = entry(options, SimpleNamespace(parts={}, bound=1.0))
        for other in before:
            source.batch(Step(index=other, total=10000))
            torch.rand(7)
        seen.append(source.batch(Step(index=index, total=10000))["cameras"])
    assert seen[0].height == seen[1].height == (64 if index < 5000 else 512)
    assert torch.equal(seen[0].c2w, seen[1].c2w) and torch.equal(seen[0].fov_y, seen[1].fov_y)


def built(kind: str, name: str, context: Context, **options: Any) -> Any:
    registry = get_registry()
    entry = registry.find(kind, name)
    target: Any = entry.load()
    return target(make_options(entry, target, registry, options), context)


class Failing(Geometry):
    """A density of which the first question fails when gradients are wanted."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        if torch.is_grad_enabled():
            raise RuntimeError("out of memory")
        return {"density": points[:, 0], "features": points}


def test_a_renderer_that_fails_leaves_gradients_as_they_were() -> None:
    """D15: normals from the density's slope turn autograd on; an exception in between must not leave it on."""
    context = Context()
    reference.scene(context)
    context.parts["geometry"] = Failing(None, context)
    volume, points = built("renderer", "volume", context, samples=8, grid=8), torch.zeros(4, 3)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="out of memory"):
            volume._field(context.parts["geometry"], points, points, points[:, 0], True)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled() and not points.requires_grad


def test_every_defect_of_a_geometry_is_named_by_a_test() -> None:
    """A test that goes away takes its name along."""
    tests = [p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py") if p != Path(__file__)]
    found = {int(n) for text in tests for n in re.findall(r"\bD(\d+)\b", text)}
    here = {int(n) for n in re.findall(r'"""D(\d+)', Path(__file__).read_text(encoding="utf-8"))}
    assert {1, 2, 3, 9, 10, 11, 13, 14, 15, 17} <= found | here
