"""Reading a configuration of threestudio: its resolvers evaluated, one value per key, and what became of each key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from core.errors import UserError, did_you_mean

MISSING = "???"
"""What a file leaves for the command line."""


def _largest(value: Any) -> float:
    """The largest value of a number or of a scheduled one (see :func:`plugins.threestudio.values.points`)."""
    from plugins.threestudio.values import points

    return max(points(value, "a schedule").values()) if isinstance(value, (list, ListConfig)) else value


_RESOLVERS: dict[str, Callable[..., Any]] = {
    "calc_exp_lr_decay_rate": lambda factor, n: factor ** (1.0 / n),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "idiv": lambda a, b: a // b,
    "basename": lambda path: Path(str(path)).name,
    "rmspace": lambda text, instead: str(text).replace(" ", instead),
    "tuple2": lambda s: [float(s), float(s)],
    "gt0": lambda s: s > 0,
    "cmaxgt0": lambda s: _largest(s) > 0,
    "not": lambda s: not s,
    "cmaxgt0orcmaxgt0": lambda a, b: _largest(a) > 0 or _largest(b) > 0,
}


@dataclass(frozen=True)
class Fate:
    """What became of a key: ``set`` to ours (``text``), the ``same`` without a key, or ``lost``, with the reason."""

    kind: Literal["set", "same", "lost"]
    text: str


@dataclass
class Theirs:
    """A file's values by dotted key, and what became of them.

    Attributes:
        name: of the file, for messages.  values: of all keys written; ``???`` where left to the command line.
        defaults: what their classes take where a file is silent.
    """

    name: str
    values: dict[str, Any]
    defaults: dict[str, Any]
    fates: dict[str, Fate] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key, MISSING) != MISSING

    def get(self, key: str, otherwise: Any = None) -> Any:
        """The value written, else their class's, else ``otherwise``."""
        return self.values[key] if key in self else self.defaults.get(key, otherwise)

    def number(self, key: str, otherwise: float = 0.0) -> float:
        """As ``get``, of a key that takes one number.

        Raises:
            UserError: there is a list or a text.
        """
        value = self.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{self.name}: {key}: expected a number, found {value!r}")
        return value

    def pair(self, key: str) -> list[float]:
        """As ``get``, of a range: two numbers.

        Raises:
            UserError: something else.
        """
        value = self.get(key)
        if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)):
            raise UserError(f"{self.name}: {key}: expected two numbers, found {value!r}")
        return value

    def use(self, key: str, ours: str) -> None:
        """Note that a key is set as ours."""
        self._note(key, Fate("set", ours))

    def same(self, key: str, why: str) -> None:
        """Note that ours is the same without a key."""
        self._note(key, Fate("same", why))

    def lose(self, key: str, why: str) -> None:
        """Note that a key has no counterpart."""
        self._note(key, Fate("lost", why))

    def _note(self, key: str, fate: Fate) -> None:
        if key in self.values and key not in self.fates:
            self.fates[key] = fate


def component(t: Theirs, key: str, known: dict[str, str], default: str) -> str:
    """Our name of the component named under ``key``.

    Raises:
        UserError: threestudio itself has none of this name.
    """
    named = t.get(key, default)
    if named not in known:
        raise UserError(f"{t.name}: {key}: '{named}' is none of threestudio's own.{did_you_mean(str(named), known)}")
    return known[named]


def read(file: Path, defaults: dict[str, Any]) -> Theirs:
    """The values of a file, with every ``${...}`` evaluated.

    Raises:
        UserError: it cannot be read, is no configuration of threestudio, or has a value that cannot be meant.
    """
    register = getattr(OmegaConf, "register_resolver", OmegaConf.register_new_resolver)  # renamed in 2.4
    for name, function in _RESOLVERS.items():
        register(name, function, replace=True)
    try:
        tree = OmegaConf.load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise UserError(f"{file}: cannot be read: {reason}") from None
    if isinstance(tree, DictConfig) and "task" in tree:
        raise UserError(f"{file}: is a job of Maquette already; use: run {file}")
    if not isinstance(tree, DictConfig) or not isinstance(tree.get("system"), DictConfig):
        raise UserError(f"{file}: is no configuration of threestudio: it has no block 'system'")
    found = Theirs(file.name, {}, defaults)
    found.values.update(_leaves(tree, "", found))
    _check_prompt(found)
    return found


def _leaves(node: DictConfig, path: str, found: Theirs) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything written."""
    for key in node:
        here = f"{path}.{key!s}" if path else str(key)
        try:
            value = node[key]
        except (MissingMandatoryValue, InterpolationToMissingValueError):
            value = MISSING
        except InterpolationKeyError as error:
            value, found.fates[here] = MISSING, Fate("lost", f"the file lacks what it refers to: {_first(error)}")
        except OmegaConfBaseException as error:
            raise UserError(f"{found.name}: {here}: {_first(error)}") from None
        if isinstance(value, DictConfig) and len(value):
            yield from _leaves(value, here, found)
        elif isinstance(value, (DictConfig, ListConfig)):
            yield here, OmegaConf.to_container(value, resolve=True)
        else:
            yield here, value


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]


def _check_prompt(found: Theirs) -> None:
    """A sentence that YAML took for something else."""
    for end in ("prompt", "negative_prompt", "prompt_front", "prompt_side", "prompt_back", "prompt_overhead"):
        key = f"system.prompt_processor.{end}"
        inside = [other for other in found.values if other.startswith(f"{key}.")]
        value = found.values.get(key, "")
        if inside or not (value is None or isinstance(value, str)):
            what = "a block of keys" if inside else repr(value)
            raise UserError(f"{found.name}: {key}: expected a sentence; YAML reads it as {what}, so write it in quotes")
