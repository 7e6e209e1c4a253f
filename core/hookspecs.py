"""The hooks a plugin may implement. Importing this module costs nothing: no torch, no numpy.

A plugin is a module with ``API = 1`` and any of these functions, each marked ``@hookimpl``. An implementation may
name fewer arguments than its specification.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from core.registry import ModelInfo, Registrar

PROJECT = "maquette"
API = 1
"""The version of this interface; a plugin that declares another one is refused with its reason."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register(registry: Registrar) -> None:
    """Declare components: ``registry.add(kind, name, "package.module:Class", "what it is", needs=[…], gives=[…])``.

    Called once, at discovery. Must not import torch; the target is imported when a configuration asks for it.
    """


@hookspec(firstresult=True)
def resolve_model(model_id: str) -> str | None:
    """Map a public model's name to a local folder or a mirror; the first answer that is not None is used."""


@hookspec
def public_models() -> list[ModelInfo]:  # type: ignore[empty-body]
    """The public models that the plugin knows by short names, for ``describe``, ``plugins --models`` and ``doctor``."""


@hookspec(firstresult=True)
def estimate_elevation(views: Any) -> float | None:
    """How high above the horizon a given picture (``core.types.Views``) seems to be taken from, in degrees; the first
    answer that is not None is used. Asked where a job does not say."""


@hookspec
def on_config(config: Any) -> None:
    """A last look at a validated job (read-only). May raise ``UserError`` to refuse it."""


@hookspec
def on_start(run: Any) -> None:
    """A run is about to take its first step (or its first after a resume)."""


@hookspec
def on_step(run: Any, step: int, losses: dict[str, float]) -> None:
    """A step was taken; called after the optimiser's update, on the main process only."""


@hookspec
def on_preview(run: Any, step: int, path: Path) -> None:
    """A preview picture was written."""


@hookspec
def on_export(run: Any, path: Path, kind: str) -> None:
    """An asset was written by the exporter ``kind``."""


@hookspec
def on_finish(run: Any) -> None:
    """A run ended normally; its assets exist."""
