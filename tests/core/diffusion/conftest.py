"""A pipeline folder shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.contracts import Context
from core.diffusion.latent import LatentPrior, load_parts

from tiny_pipeline import write_pipeline  # isort: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where embeddings are kept, apart from the user's and from other tests'."""
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def parts(folder: Path) -> dict[str, Any]:
    return load_parts(str(folder))


@pytest.fixture
def prior(parts: dict[str, Any]) -> LatentPrior:
    return LatentPrior(None, Context(), parts)
