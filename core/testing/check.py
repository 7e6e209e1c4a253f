"""``check_component``: builds a component with small settings on the CPU and holds it to its kind's contract."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core import contracts
from core.config.base import ComponentSpec, Config
from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError
from core.registry import Entry, PluginInfo, Registry, describe_error
from core.testing import reference

BASES: dict[str, type] = {
    "geometry": contracts.Geometry,
    "material": contracts.Material,
    "background": contracts.Background,
    "renderer": contracts.Renderer,
    "prior": contracts.Prior,
    "score": contracts.Score,
    "data": contracts.DataSource,
    "prompt": contracts.PromptProcessor,
    "task": contracts.Task,
    "generator": contracts.Generator,
    "exporter": contracts.Exporter,
    "converter": contracts.Converter,
    "metric": contracts.Metric,
}


class CheckFailed(UserError):
    """A component does not keep its contract.

    Attributes:
        problems: one sentence each.
    """

    def __init__(self, who: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{who}: {problem}" for problem in problems))


@dataclass
class Checked:
    """What a check works with, and what it found.

    Attributes:
        entry, target: the component as declared and imported.  options: its validated options.
        registry: where its own slots are looked up.
        passed, problems: sentences.
    """

    entry: Entry
    target: Any
    options: Any
    registry: Registry
    passed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def gives(self) -> tuple[str, ...]:
        """The signals it gives with these options."""
        refine = getattr(self.target, "signals", None)
        found = refine(self.options) if refine is not None and self.options is not None else None
        return self.entry.gives if found is None else tuple(found[1])

    def require(self, holds: bool, promise: str, otherwise: str = "") -> bool:
        """Note that ``promise`` is kept, or that it is not (``otherwise`` says what was found)."""
        if holds:
            self.passed.append(promise)
        else:
            self.problems.append(f"broken: {promise}{f'; {otherwise}' if otherwise else ''}")
        return holds

    def build(self, seed: int = 0, noise: int = 0) -> Any:
        """The component in a fresh reference scene.

        Args:
            seed: of the run.  noise: state of the global random stream, which must not matter.
        """
        from core.stages import component_builder

        context = Context(seed=seed)
        reference.scene(context)
        context.parts.pop(self.entry.kind, None)
        context.parts["registry"] = self.registry
        context.parts["asked"] = reference.asked(context)
        context.build = component_builder(self.registry, context)
        torch.manual_seed(noise)
        return self.target(self.options, context)


def check_component(
    kind: str, name: str, registry: Registry | None = None, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Check that a component keeps its kind's contract.

    Args:
        kind, name: as in a job file.  registry: where to look; by default the process's.
        options: what to set; needed where an option has no default, and to make a large model small.

    Returns:
        The promises that were found kept, one sentence each.

    Raises:
        CheckFailed: with every broken promise.
        UserError: no such component, or its options are wrong.
    """
    registry = registry or get_registry()
    entry = registry.find(kind, name)
    target = entry.load()
    checked = Checked(entry, target, None, registry)
    _check_declaration(checked)
    if not checked.problems:
        checked.options = make_options(entry, target, registry, options or {})
        _run(checked)
    if checked.problems:
        raise CheckFailed(f"{kind} '{entry.qualified}'", checked.problems)
    return checked.passed


def make_options(entry: Entry, target: Any, registry: Registry, options: Mapping[str, Any]) -> Any:
    """Validated options, with the components that they name looked up.

    Raises:
        ConfigError: with every problem.
    """
    from core.config.nodes import from_python
    from core.config.values import Checker
    from core.errors import ConfigError

    checker = Checker(registry)
    node = from_python(dict(options), "options")
    made = checker.options(target, entry.kind, entry.name, node, "", entry.qualified)
    if checker.problems:
        raise ConfigError(checker.problems)
    return made


def spec(checked: Checked) -> ComponentSpec:
    """The checked component as a slot would hold it."""
    return ComponentSpec(checked.entry.kind, checked.entry.qualified, checked.options)


def _run(checked: Checked) -> None:
    """The kind's own checks; an exception of the component is a problem like another."""
    from core.testing import converters, guidance, outputs, parts, tasks

    checks = {**parts.CHECKS, **guidance.CHECKS, **outputs.CHECKS, **tasks.CHECKS, **converters.CHECKS}
    check = checks.get(checked.entry.kind)
    if check is None:
        return
    try:
        check(checked)
    except Exception as error:
        place = _last_frame(error, checked.target)
        checked.problems.append(f"raised {describe_error(error)}{place}")
        if os.environ.get("MAQUETTE_DEBUG", "") not in ("", "0"):
            raise CheckFailed(f"{checked.entry.kind} '{checked.entry.qualified}'", checked.problems) from error


def _last_frame(error: BaseException, target: Any) -> str:
    """Where in the component's own file the exception passed."""
    own, place, trace = inspect.getsourcefile(target), "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == own:
            place = f" ({Path(own).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _check_declaration(checked: Checked) -> None:
    """What holds for every kind: class, documentation, and a registration that imports no torch."""
    entry, target = checked.entry, checked.target
    base = BASES.get(entry.kind)
    if base is not None:
        fits = inspect.isclass(target) and issubclass(target, base)
        if not checked.require(fits, f"the target is a subclass of core.{base.__name__}", f"it is {target!r}"):
            return
    checked.require(bool((target.__doc__ or "").strip()), "it has a docstring of its own")
    config = getattr(target, "Config", None)
    if config is not None and checked.require(
        inspect.isclass(config) and issubclass(config, Config), "its options are a class derived from core.Config"
    ):
        silent = [n for n, info in config.model_fields.items() if not info.description]
        checked.require(not silent, "every option has a docstring", f"none under: {', '.join(silent)}")
    if inspect.isabstract(target):
        left = ", ".join(sorted(getattr(target, "__abstractmethods__", ())))
        checked.require(False, "every method of the contract is there", f"missing: {left}")
    info = checked.registry.plugin(entry.plugin)
    if info is not None and info.source != "built-in":
        checked.require(not registration_imports_torch(info), "its plugin module does not import torch")


_PROBE = """
import sys
from pathlib import Path
from core.discovery import load_registry
where, folder = sys.argv[1], sys.argv[2] == "folder"
load_registry([Path(where)] if folder else [], entry_points=False, env=not folder)
print("torch" in sys.modules)
"""


def registration_imports_torch(info: PluginInfo) -> bool:
    """Whether discovering the plugin in a fresh interpreter brings torch in."""
    words = [sys.executable, "-c", _PROBE, info.where, info.source]
    module = info.where.partition(":")[0]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
    environ |= {"MAQUETTE_PLUGINS": module, "MAQUETTE_PLUGIN_PATH": "", "MAQUETTE_STRICT": "0"}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=False)
    return done.stdout.strip() == "True"
