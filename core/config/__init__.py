"""Configurations: YAML to validated jobs. Nothing here imports torch; the components that a job names may.

``load_job`` reads, merges, overrides and checks; ``build`` turns a checked spec into a component; ``dump_yaml`` writes
a job back; ``describe_options`` and ``example_yaml`` document a component's options.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.config.base import ComponentSpec, Config, Slot
    from core.config.build import build
    from core.config.describe import Option, describe_options, example_yaml
    from core.config.dump import dump_yaml, to_plain
    from core.config.job import Job, JobConfig, OptimizerConfig, PluginsConfig, Stage, StageConfig
    from core.config.loading import load_job
    from core.config.schedule import Schedule
    from core.config.sources import preset_names

_HOMES = {
    "base": ("ComponentSpec", "Config", "Slot"),
    "build": ("build",),
    "loading": ("load_job",),
    "describe": ("Option", "describe_options", "example_yaml"),
    "dump": ("dump_yaml", "to_plain"),
    "job": ("Job", "JobConfig", "OptimizerConfig", "PluginsConfig", "Stage", "StageConfig"),
    "sources": ("preset_names",),
    "schedule": ("Schedule",),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ComponentSpec",
    "Config",
    "Job",
    "JobConfig",
    "OptimizerConfig",
    "Option",
    "PluginsConfig",
    "Schedule",
    "Slot",
    "Stage",
    "StageConfig",
    "build",
    "describe_options",
    "dump_yaml",
    "example_yaml",
    "load_job",
    "preset_names",
    "to_plain",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
