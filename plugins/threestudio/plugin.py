"""Importing from threestudio."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("command", "import-threestudio", "plugins.threestudio.command:import_threestudio",
                 "turn a configuration of threestudio into a job file")  # fmt: skip
