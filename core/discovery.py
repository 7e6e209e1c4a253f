"""Finds plugins and fills a registry; whatever is wrong with one of them takes nothing else down.

Order: the built-in ``core``; each ``plugins/*/plugin.py`` beside the installed package; user folders in
``MAQUETTE_PLUGIN_PATH``; pip entry points ``maquette.plugins``; modules in ``MAQUETTE_PLUGINS="pkg.module,…"``.
``MAQUETTE_STRICT=1`` stops at the first plugin that fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pluggy

from core.errors import UserError, did_you_mean
from core.hookspecs import API, PROJECT
from core.registry import PluginInfo, Registrar, Registry, describe_error

GROUP = "maquette.plugins"
BUILT_IN = ("core.builtin",)


@dataclass
class _Candidate:
    """A plugin that was seen and not imported yet."""

    name: str
    source: str
    where: str
    load: Callable[[], ModuleType]
    version: str = ""
    required: bool = False  # the core itself: cannot be blocked, and its failure is fatal


@dataclass
class _Switches:
    blocked: tuple[str, ...] = ()
    external: bool = True
    cached: list[Registry] = field(default_factory=list)


_switches = _Switches()


def configure(blocked: Sequence[str] = (), external: bool = True) -> None:
    """What :func:`get_registry` shall leave out from now on.

    Args:
        blocked: names of plugins that are not imported.
        external: False loads only what ships with Maquette (the switch ``--no-plugins``).
    """
    _switches.blocked, _switches.external = tuple(blocked), external
    _switches.cached.clear()


def get_registry(blocked: Sequence[str] = ()) -> Registry:
    """The process's registry, discovered at the first call; with ``blocked``, a fresh one without those plugins too."""
    external = _switches.external
    folders = None if external else shipped_folders()
    if blocked:
        return load_registry(folders, external, external, (*_switches.blocked, *blocked))
    if not _switches.cached:
        registry = load_registry(folders, external, external, _switches.blocked)
        _check_blocked(registry)
        _switches.cached.append(registry)
    return _switches.cached[0]


def _check_blocked(registry: Registry) -> None:
    """Refuse a misspelt ``-p no:NAME``: it would leave in what was to be left out."""
    for name in _switches.blocked if _switches.external else ():
        info = registry.plugin(name)
        if info is None:
            raise UserError(
                f"-p no:{name}: there is no plugin '{name}'.{did_you_mean(name, [p.name for p in registry.plugins])}"
            )
        if info.status == "loaded":
            raise UserError(f"-p no:{name}: nothing works without the plugin '{name}'")


def load_registry(
    folders: Iterable[Path] | None = None,
    entry_points: bool = True,
    env: bool = True,
    blocked: Sequence[str] = (),
    strict: bool | None = None,
) -> Registry:
    """A fresh registry.

    Args:
        folders: folders whose sub-folders are plugins; None means the shipped ones and (with ``env``) the user's.
        entry_points: look at installed distributions.  env: look at ``MAQUETTE_PLUGIN_PATH``, ``MAQUETTE_PLUGINS``.
        blocked: plugins to leave out, never imported.  strict: raise at the first failure; None asks
            ``MAQUETTE_STRICT``.

    Raises:
        UserError: the core itself does not load, or any plugin does not under ``strict``.
    """
    strict = os.environ.get("MAQUETTE_STRICT", "") not in ("", "0") if strict is None else strict
    registry, gone = Registry(), {_dashed(name) for name in blocked}
    for candidate in _candidates(folders, entry_points, env):
        if candidate.name in gone and not candidate.required:
            reason = "switched off for this run"
            info = PluginInfo(candidate.name, candidate.source, status="blocked", reason=reason, where=candidate.where)
            registry.adopt(info)
        else:
            _try(registry, candidate, strict or candidate.required)
    return registry


def shipped_folders() -> list[Path]:
    """The folder of the installed ``plugins`` package (empty if the core stands alone)."""
    spec = importlib.util.find_spec("plugins")
    return [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []


def _try(registry: Registry, candidate: _Candidate, strict: bool) -> None:
    """Load one plugin; on any failure take back its hooks and components, and record the reason."""
    registrar = Registrar(candidate.name)
    had_torch, start, module = "torch" in sys.modules, time.perf_counter(), None
    try:
        taken = registry.plugin(candidate.name)
        if taken is not None and taken.status == "loaded":
            raise UserError(f"the name '{candidate.name}' is already taken by {taken.where} ({taken.source})")
        module = candidate.load()
        _check_module(module)
        _connect(registry.manager, module, candidate.name, registrar)
    except (Exception, SystemExit) as error:
        if module is not None and registry.manager.is_registered(module):
            registry.manager.unregister(module)
        if strict:
            raise UserError(f"plugin '{candidate.name}': {describe_error(error)}") from error
        offers = tuple((e.kind, e.name) for e in registrar.entries)
        registry.adopt(_info(candidate, start, module, "failed", describe_error(error), offers))
    else:
        note = "imports torch at registration" if "torch" in sys.modules and not had_torch else ""
        registry.adopt(_info(candidate, start, module, "loaded", note=note), registrar.entries)


def _info(
    candidate: _Candidate,
    start: float,
    module: ModuleType | None,
    status: str,
    reason: str = "",
    offers: tuple[tuple[str, str], ...] = (),
    note: str = "",
) -> PluginInfo:
    version = candidate.version or str(getattr(module, "__version__", ""))
    ms = (time.perf_counter() - start) * 1000
    return PluginInfo(candidate.name, candidate.source, version, ms, status, reason, candidate.where, offers, note)


def _check_module(module: ModuleType) -> None:
    """Refuse another interface version, and hooks whose marker was forgotten (pluggy would skip them silently)."""
    declared = getattr(module, "API", None)
    if declared is None:
        raise UserError(f"it declares no API version; write API = {API}")
    if declared != API:
        raise UserError(f"it was written for plugin API {declared}, this is API {API}")
    from core import hookspecs

    for name, value in vars(module).items():
        spec = getattr(getattr(hookspecs, name, None), f"{PROJECT}_spec", None)
        if spec is not None and callable(value) and not hasattr(value, f"{PROJECT}_impl"):
            raise UserError(f"the function '{name}' is not marked @hookimpl")


def _connect(manager: pluggy.PluginManager, module: ModuleType, name: str, registrar: Registrar) -> None:
    manager.register(module, name)
    _check_hooks(manager, module)
    manager.check_pending()
    for implementation in manager.hook.register.get_hookimpls():
        if implementation.plugin is module:
            implementation.function(*([registrar] if implementation.argnames else []))


def _check_hooks(manager: pluggy.PluginManager, module: ModuleType) -> None:
    """Refuse a misspelt hook: it would do nothing, silently."""
    known = [name for name in vars(manager.hook) if not name.startswith("_") and getattr(manager.hook, name).has_spec()]
    for caller in manager.get_hookcallers(module) or ():
        if not caller.has_spec() and any(i.plugin is module and not i.optionalhook for i in caller.get_hookimpls()):
            raise UserError(f"unknown hook '{caller.name}'.{did_you_mean(caller.name, known)}")


def _candidates(folders: Iterable[Path] | None, entry_points: bool, env: bool) -> Iterator[_Candidate]:
    for name in BUILT_IN:
        yield _Candidate("core", "built-in", name, _importer(name), _own_version(), required=True)
    if folders is None:
        folders = shipped_folders() + (_user_folders() if env else [])
    for folder in folders:
        yield from _in_folder(Path(folder))
    if entry_points:
        yield from _installed()
    if env:
        for name in filter(None, (part.strip() for part in os.environ.get("MAQUETTE_PLUGINS", "").split(","))):
            short = name.removesuffix(".plugin").rpartition(".")[2]
            yield _Candidate(_dashed(short), "environment", name, _importer(name))


def _user_folders() -> list[Path]:
    return [Path(p).expanduser() for p in os.environ.get("MAQUETTE_PLUGIN_PATH", "").split(os.pathsep) if p]


def _in_folder(folder: Path) -> Iterator[_Candidate]:
    """The plugins in ``folder``, or ``folder`` itself if it is one."""
    shipped = folder in shipped_folders()
    version = _own_version() if shipped else ""
    if not folder.is_dir():
        yield _Candidate(_dashed(folder.name), "folder", str(folder), _missing_folder(folder))
        return
    files = [folder / "plugin.py"] if (folder / "plugin.py").is_file() else sorted(folder.glob("*/plugin.py"))
    for file in files:
        module = f"plugins.{file.parent.name.replace('-', '_')}.plugin"
        plain = shipped and file.parent.name.isidentifier()
        load = _importer(module) if plain else _folder_importer(file.parent, module)
        yield _Candidate(_dashed(file.parent.name), "folder", str(file.parent), load, version)


def _installed() -> Iterator[_Candidate]:
    seen: set[tuple[str, str, str]] = set()
    for point in metadata.entry_points(group=GROUP):
        owner, version = (point.dist.name, point.dist.version) if point.dist else ("", "")
        if (point.name, point.value, owner) not in seen:  # one distribution may stand on the path twice
            seen.add((point.name, point.value, owner))
            yield _Candidate(_dashed(point.name), "entry point", point.value, point.load, version)


def _importer(name: str) -> Callable[[], ModuleType]:
    return lambda: importlib.import_module(name)


def _missing_folder(folder: Path) -> Callable[[], ModuleType]:
    def load() -> ModuleType:
        raise UserError(f"there is no folder {folder} (in MAQUETTE_PLUGIN_PATH)")

    return load


def _folder_importer(folder: Path, module: str) -> Callable[[], ModuleType]:
    """Imports ``folder`` as the package ``plugins.<name>``: no ``sys.path`` entry, so plugins cannot collide."""

    def load() -> ModuleType:
        package = module.removesuffix(".plugin")
        known = sys.modules.get(package)
        if known is not None and str(folder) not in getattr(known, "__path__", []):
            _forget(package)  # an earlier registry of this process knew another folder of that name
            known = None
        try:
            if known is None:
                _make_package(package, folder)
            return importlib.import_module(module)
        except BaseException:
            _forget(package)
            raise

    return load


def _make_package(name: str, folder: Path) -> None:
    init = folder / "__init__.py"
    parent = importlib.import_module("plugins")
    if init.is_file():
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
    else:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    if spec is None:
        raise UserError(f"{init} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader is not None:
        spec.loader.exec_module(module)
    setattr(parent, name.rpartition(".")[2], module)


def _forget(package: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        del sys.modules[name]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _own_version() -> str:
    from core import __version__

    return __version__
