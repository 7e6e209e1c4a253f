"""``doctor``: what this machine has, which backends are chosen and why, and what is missing."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Annotated, Any

import typer

from core import __version__
from core.cli.catalogue import public_models
from core.cli.environment import physical_cores
from core.cli.output import table, write_json
from core.discovery import get_registry
from core.errors import UserError
from core.registry import Registry

PACKAGES = ("torch", "numba", "lightning-fabric", "pydantic", "safetensors", "diffusers", "transformers", "trimesh")


def attach(app: typer.Typer) -> None:
    """Add this module's verb."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Report on this machine: hardware, versions, backends and why they were chosen, optional extras, plugins."""
    found = report(get_registry())
    write_json(found) if as_json else print(as_text(found))


def report(registry: Registry) -> dict[str, Any]:
    """Everything ``doctor`` shows, as plain data. Imports torch."""
    gone = [p for p in registry.plugins if p.status != "loaded"]
    return {
        "maquette": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {physical_cores()} cores to use",
        "threads": {n: os.environ.get(n, "") for n in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_WAIT_POLICY")},
        "devices": _devices(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backends": _backends(),
        "forced": _forced(),
        "extras": extras(registry),
        "models": {model.name: model.here for model in public_models(registry) if model.here},
        "plugins": {p.name: {"status": p.status, "reason": p.reason} for p in gone},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def _backends() -> list[dict[str, object]]:
    from core.kernels import dispatch

    return dispatch.report()


def _forced() -> str:
    """What is wrong with ``MAQUETTE_KERNELS``, else what it says."""
    from core.kernels import dispatch

    try:
        dispatch.check_environment()
    except UserError as error:
        return str(error)
    return os.environ.get(dispatch.VARIABLE, "")


def extras(registry: Registry) -> dict[str, dict[str, Any]]:
    """Per optional dependency group: the components it serves, and its packages that are not installed.

    ``missing`` is None where it cannot be told: in a checkout that is not installed.
    """
    found: dict[str, dict[str, Any]] = {}
    for extra, packages in _declared().items():
        found[extra] = {"components": [], "missing": [p for p in packages if _version(p) is None]}
    for entry in registry.entries():
        if entry.extra:
            group = found.setdefault(entry.extra, {"components": [], "missing": None})
            group["components"].append(f"{entry.kind} {entry.name}")
    return found


def _declared() -> dict[str, list[str]]:
    """Groups and their packages from the installed distribution; empty in a checkout that is not installed."""
    from packaging.requirements import Requirement

    groups: dict[str, list[str]] = {}
    try:
        lines = metadata.requires("maquette") or []
    except metadata.PackageNotFoundError:
        return groups
    for name in metadata.metadata("maquette").get_all("Provides-Extra") or []:
        wanted = [Requirement(line) for line in lines]
        chosen = [
            r.name for r in wanted if r.marker and "extra" in str(r.marker) and r.marker.evaluate({"extra": name})
        ]
        groups[name] = chosen
    return groups


def as_text(found: dict[str, Any]) -> str:
    """The report for people."""
    head = [
        ["maquette", found["maquette"]],
        ["python", f"{found['python']} ({sys.executable})"],
        ["machine", found["machine"]],
        ["threads", ", ".join(f"{k}={v or 'unset'}" for k, v in found["threads"].items())],
        ["devices", ", ".join(found["devices"])],
        ["packages", ", ".join(f"{k} {v or 'absent'}" for k, v in found["packages"].items())],
    ]
    forced = f" ({found['forced']})" if found["forced"] else ""
    parts = [table(head), f"backends{forced}\n" + _backend_table(found["backends"])]
    if found["extras"]:
        parts.append("extras\n" + "\n".join(_extra_line(k, v) for k, v in found["extras"].items()))
    here = [[f"  {name}", where] for name, where in found["models"].items()]
    parts.append("public models here\n" + table(here) if here else "no public models here; plugins --models lists them")
    problems = [f"  {name}: {info['status']}: {info['reason']}" for name, info in found["plugins"].items()]
    parts.append("plugins that are not there\n" + "\n".join(problems) if problems else "every plugin loaded")
    return "\n\n".join(parts)


def _extra_line(name: str, info: dict[str, Any]) -> str:
    serves = f"; serves {', '.join(info['components'])}" if info["components"] else ""
    install = f'; pip install "maquette[{name}]"'
    if info["missing"] is None:
        return f"  {name}: not an installed distribution, cannot tell{serves}"
    if not info["missing"]:
        return f"  {name}: complete{serves}"
    return f"  {name}: missing {', '.join(info['missing'])}{serves}{install}"


def _backend_table(rows: list[dict[str, Any]]) -> str:
    """One line per backend: chosen or not, and why; how to get those that are missing."""
    lines = [
        [
            str(row["kernel"]),
            str(row["backend"]),
            "chosen for " + ", ".join(row["chosen_for"]) if row["chosen_for"] else "",
            str(row["why"]),
            f"{row['gain']}; {row['install']}" if row["install"] else str(row["gain"]),
        ]
        for row in rows
    ]
    return "\n".join(f"  {line}" for line in table(lines).splitlines())
