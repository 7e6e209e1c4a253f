"""The typed registry: components by kind and name, each a string target that is imported only when asked for.

Importing this module imports no torch. :mod:`core.discovery` fills a registry from the plugins it finds.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pluggy

from core import hookspecs
from core.errors import UserError, did_you_mean
from core.signals import check_signals

KINDS: dict[str, str] = {
    "geometry": "a representation of shape",
    "material": "turns features into colour",
    "background": "what is seen where the object is not",
    "renderer": "makes images of a geometry",
    "prior": "a diffusion model behind one face",
    "score": "turns a prior's prediction into a loss on what was rendered",
    "loss": "a weighted term beside the guidance",
    "data": "cameras, and images where there are any",
    "prompt": "turns the job's sentence into one text per view",
    "task": "what the loop optimises",
    "generator": "a generative model: a task that, once fitted, is sampled into objects or pictures",
    "exporter": "writes an asset",
    "converter": "turns one representation into another",
    "metric": "measures renders against what was asked",
    "listener": "follows a run: logs, viewers, early stops",
    "command": "a further verb: `import-…` itself, others through `bench` and `eval`",
}

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class ModelInfo:
    """A public model that a plugin knows by a short name.

    Attributes:
        name: the alias.  about: one line.  prior: the component that loads it, "" where there is none.
        licence: of the weights.  size: of the download, for people.
        mirrors: where it is to be had, in the order tried.  withdrawn: names that stopped answering.
        here: where it is on this machine, or "".  command: what downloads it.
    """

    name: str
    about: str
    prior: str
    licence: str
    size: str
    mirrors: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()
    here: str = ""
    command: str = ""


@dataclass(frozen=True)
class Entry:
    """A declared component; nothing of it is imported until :meth:`load`.

    Attributes:
        kind, name: its place in the registry.  target: ``"package.module:Object"``.  doc: one line.
        plugin: who declared it.  needs, gives: signals (see :mod:`core.signals`).
        extra: the optional dependency group it needs, e.g. ``"diffusion"``; None where the base install is enough.
    """

    kind: str
    name: str
    target: str
    doc: str
    plugin: str
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def qualified(self) -> str:
        """``plugin/name``: settles which one is meant when two plugins offer the same name."""
        return f"{self.plugin}/{self.name}"

    def load(self) -> Any:
        """Import the target and return it.

        Raises:
            UserError: the module cannot be imported (with the extra to install), or lacks the object.
        """
        module_name, _, attribute = self.target.partition(":")
        who = f"{self.kind} '{self.name}' (plugin {self.plugin})"
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            hint = f' Install it with: pip install "maquette[{self.extra}]"' if self.extra else ""
            raise UserError(f"{who} could not be imported: {error}.{hint}") from error
        except Exception as error:
            raise UserError(f"{who} could not be imported: {describe_error(error)}") from error
        if not hasattr(module, attribute):
            known = [name for name in vars(module) if not name.startswith("_")]
            raise UserError(f"{who}: {module_name} has no '{attribute}'.{did_you_mean(attribute, known)}")
        return getattr(module, attribute)


@dataclass(frozen=True)
class PluginInfo:
    """What became of a plugin.

    Attributes:
        name: with dashes.  source: ``built-in``, ``folder``, ``entry point`` or ``environment``.
        version: of its distribution, or its ``__version__``, or ``""``.  ms: time to import and register.
        status: ``loaded``, ``failed`` or ``blocked``.  reason: why not, in one sentence.
        where: its module or folder.  offers: what it had declared before it failed, as ``(kind, name)``.
        note: something its author should know though it loaded.
    """

    name: str
    source: str
    version: str = ""
    ms: float = 0.0
    status: str = "loaded"
    reason: str = ""
    where: str = ""
    offers: tuple[tuple[str, str], ...] = ()
    note: str = ""


def describe_error(error: BaseException) -> str:
    """``KeyError: 'x'`` on one line; the message alone for a user's mistake."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": ")


@dataclass
class Registrar:
    """Handed to a plugin's ``register``; collects what it declares, so that a failure leaves nothing behind."""

    plugin: str
    entries: list[Entry] = field(default_factory=list)

    def add(
        self,
        kind: str,
        name: str,
        target: str,
        doc: str,
        *,
        needs: Iterable[str] = (),
        gives: Iterable[str] = (),
        extra: str | None = None,
    ) -> None:
        """Declare one component.

        Args:
            kind: one of ``KINDS``.  name: lower case, digits, dashes and dots.
            target: ``"package.module:Object"``, imported when a configuration asks for it.
            doc: one line, shown by ``plugins`` and ``describe``.
            needs, gives: signals; a need may be ``"rgb|latent"``.
            extra: the group of optional dependencies it needs.

        Raises:
            UserError: unknown kind or signal, malformed name or target, no doc, or a name declared twice.
        """
        if kind not in KINDS:
            raise UserError(f"'{kind}' is not a kind of component.{did_you_mean(kind, KINDS)}")
        if not _NAME.fullmatch(name):
            raise UserError(f"{kind} '{name}': a name has lower-case letters, digits, dashes and dots")
        if not _TARGET.fullmatch(target):
            raise UserError(f"{kind} '{name}': the target '{target}' is not of the form 'package.module:Object'")
        if not doc.strip():
            raise UserError(f"{kind} '{name}' needs one line that says what it is")
        if isinstance(needs, str) or isinstance(gives, str):
            raise UserError(f"{kind} '{name}': needs and gives are lists of signals, not one string")
        if any(e.kind == kind and e.name == name for e in self.entries):
            raise UserError(f"{kind} '{name}' is declared twice")
        needs, gives = tuple(needs), tuple(gives)
        try:
            check_signals(needs, gives)
        except UserError as error:
            raise UserError(f"{kind} '{name}': {error}") from None
        self.entries.append(Entry(kind, name, target, doc.strip(), self.plugin, needs, gives, extra))


class Registry:
    """Components and plugins that were found, and the relay that carries hooks to the plugins.

    Attributes:
        plugins: one :class:`PluginInfo` for each plugin seen, in order of discovery.
        manager: the pluggy manager; ``hooks`` is its relay: ``registry.hooks.on_finish(run=run)``.
    """

    def __init__(self) -> None:
        self.plugins: list[PluginInfo] = []
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._entries: list[Entry] = []

    @property
    def hooks(self) -> Any:
        """The relay: each hook of :mod:`core.hookspecs` as a function of keyword arguments."""
        return self.manager.hook

    def adopt(self, info: PluginInfo, entries: Iterable[Entry] = ()) -> None:
        """Record a plugin and what it declared."""
        self.plugins.append(info)
        self._entries.extend(entries)

    def entries(self, kind: str | None = None) -> list[Entry]:
        """All components, or those of one kind, sorted by kind (in the order of ``KINDS``), name and plugin."""
        order = list(KINDS)
        chosen = [e for e in self._entries if kind is None or e.kind == kind]
        return sorted(chosen, key=lambda e: (order.index(e.kind), e.name, e.plugin))

    def suppliers(self, signal: str) -> list[Entry]:
        """The components that give ``signal``."""
        return [e for e in self.entries() if signal in e.gives]

    def plugin(self, name: str) -> PluginInfo | None:
        """The plugin ``name`` (dashes or underscores); the loaded one where a second was refused."""
        found = [p for p in self.plugins if p.name == name.replace("_", "-")]
        return min(found, key=lambda p: p.status != "loaded", default=None)

    def find(self, kind: str, name: str) -> Entry:
        """The component ``name`` (or ``plugin/name``) of ``kind``.

        Raises:
            UserError: unknown kind, unknown name (with the nearest one, another kind that has it, or a plugin that
                did not load and may provide it), or a name that two plugins offer.
        """
        if kind not in KINDS:
            raise UserError(f"'{kind}' is not a kind of component.{did_you_mean(kind, KINDS)}")
        plugin, _, short = name.rpartition("/")
        plugin = plugin.replace("_", "-")
        found = [e for e in self.entries(kind) if e.name == short and plugin in ("", e.plugin)]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(e.qualified for e in found)
            raise UserError(f"{kind} '{name}' is offered by {len(found)} plugins; write one of: {choices}")
        raise UserError(f"no {kind} named '{name}'.{self._why_not(kind, plugin, short)}")

    def _why_not(self, kind: str, plugin: str, name: str) -> str:
        absent = self._absent(kind, plugin, name)
        if absent:
            return absent
        others = sorted({e.kind for e in self._entries if e.name == name and e.kind != kind})
        if others:
            return f" '{name}' is a {' and a '.join(others)}."
        known = self.entries(kind)
        elsewhere = [e.qualified for e in known if plugin and e.name == name]
        if elsewhere:
            return f" Write {' or '.join(elsewhere)}."
        hint = did_you_mean(name, [e.name for e in known])
        return hint + self._suspects(plugin, certain="Did you mean" in hint)

    def _absent(self, kind: str, plugin: str, name: str) -> str:
        """A plugin that is known to offer it, or that was asked for by name, yet is not there."""
        for info in self.plugins:
            asked = bool(plugin) and info.name == plugin
            if info.status != "loaded" and (asked or (kind, name) in info.offers):
                return f" Plugin '{info.name}' {_fate(info)}"
        return ""

    def _suspects(self, plugin: str, certain: bool) -> str:
        """Plugins that are not there and might provide it; silent when a near miss explains the mistake."""
        gone = [] if certain else [p for p in self.plugins if p.status != "loaded" and plugin in ("", p.name)]
        return "".join(f" Plugin '{p.name}' may provide it but {_fate(p)}" for p in gone)


def _fate(info: PluginInfo) -> str:
    return f"is blocked ({info.reason})." if info.status == "blocked" else f"did not load: {info.reason}."
