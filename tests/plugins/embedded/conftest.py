"""A family fitted for two steps of each part, on a pool of 64 pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.config.loading import load_job
from core.discovery import get_registry
from core.job import run_job

IMAGES = 64
FITS: dict[str, dict[str, Any]] = {
    "embedded-autoencoder": {"channels": [8, 8, 16], "latent_channels": 4},
    "embedded-clip": {"width": 32, "layers": 1},
    "embedded-classifier": {"width": 8},
    "embedded-unet": {"channels": [16, 16, 16]},
    "embedded-sight": {"width": 16},
    "embedded-zero123": {"channels": [16, 16, 16], "repaint": 0.5},
    "embedded-multiview": {"channels": [16, 16, 16]},
}
SETS = {"views": 5, "orbit": True, "images": 40, "batch": 2}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pools of this session, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MAQUETTE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def data(cache: Path) -> Any:
    """The pool itself."""
    from core.contracts import Context

    found = get_registry().find("data", "procedural").load()
    return found(found.Config(images=IMAGES, batch=8), Context())


@pytest.fixture(scope="session")
def fitted(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The finished runs by task; ``folder`` is the family's."""
    folder = tmp_path_factory.mktemp("family")
    runs: dict[str, Any] = {"folder": folder}
    for task, options in FITS.items():
        sets = {"embedded-multiview": SETS, "embedded-zero123": {"views": 4}}.get(task, {})
        start = {"start": str(folder)} if task in ("embedded-zero123", "embedded-multiview") else {}
        job = load_job(
            {"task": task, "steps": 2, "device": "cpu", "preview_every": 0, "checkpoint_every": 0, "log_every": 1,
             "family": str(folder), "data": {"type": "procedural", "images": IMAGES, "batch": 8} | sets,
             "optimizer": {"lr": 1e-3}} | options | start, (), get_registry(),
        )  # fmt: skip
        runs[task] = run_job(job, get_registry(), folder=tmp_path_factory.mktemp("runs") / task, quiet=True)
    return runs


@pytest.fixture(scope="session")
def family(fitted: dict[str, Any]) -> Path:
    return fitted["folder"]
