# ruff: noqa: F401 (the imports for type checkers are the exports)
"""Maquette's core: contracts, configuration, the loop, and the registry through which plugins supply the rest.

The names below are loaded when first used; ``import core`` itself imports neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "API": "core.hookspecs",
    "hookimpl": "core.hookspecs",
    "UserError": "core.errors",
    "ConfigError": "core.errors",
    "NonFiniteLoss": "core.errors",
    "Entry": "core.registry",
    "KINDS": "core.registry",
    "PluginInfo": "core.registry",
    "Registrar": "core.registry",
    "Registry": "core.registry",
    "SIGNALS": "core.signals",
    "get_registry": "core.discovery",
    "load_registry": "core.discovery",
    "ComponentSpec": "core.config.base",
    "Config": "core.config.base",
    "Slot": "core.config.base",
    "Schedule": "core.config.schedule",
    "Job": "core.config.job",
    "load_job": "core.config.loading",
    "run_job": "core.job",
    "Run": "core.run",
    "Cameras": "core.types",
    "Condition": "core.types",
    "Mesh": "core.types",
    "Points": "core.types",
    "Splats": "core.types",
    "Render": "core.types",
    "Background": "core.contracts",
    "Component": "core.contracts",
    "Context": "core.contracts",
    "Converter": "core.contracts",
    "DataSource": "core.contracts",
    "Exporter": "core.contracts",
    "Generator": "core.contracts",
    "Geometry": "core.contracts",
    "Material": "core.contracts",
    "Metric": "core.contracts",
    "Module": "core.contracts",
    "Prior": "core.contracts",
    "PromptProcessor": "core.contracts",
    "Renderer": "core.contracts",
    "Scene": "core.contracts",
    "Score": "core.contracts",
    "Step": "core.contracts",
    "Task": "core.contracts",
    "check_component": "core.testing",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from core.config.base import ComponentSpec, Config, Slot
    from core.config.job import Job
    from core.config.loading import load_job
    from core.config.schedule import Schedule
    from core.contracts import (
        Background,
        Component,
        Context,
        Converter,
        DataSource,
        Exporter,
        Generator,
        Geometry,
        Material,
        Metric,
        Module,
        Prior,
        PromptProcessor,
        Renderer,
        Scene,
        Score,
        Step,
        Task,
    )
    from core.discovery import get_registry, load_registry
    from core.errors import ConfigError, NonFiniteLoss, UserError
    from core.hookspecs import API, hookimpl
    from core.job import run_job
    from core.registry import KINDS, Entry, PluginInfo, Registrar, Registry
    from core.run import Run
    from core.signals import SIGNALS
    from core.testing import check_component
    from core.types import Cameras, Condition, Mesh, Points, Render, Splats


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'core' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
