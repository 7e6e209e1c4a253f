"""``main``: switches that stand anywhere, the verbs, and what becomes of errors."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core import discovery
from core.cli.environment import prepare
from core.errors import UserError


@dataclass(frozen=True)
class Switches:
    """The switches that are accepted before and after any verb.

    Attributes:
        debug: show tracebacks.  external: load plugins that do not ship with Maquette.
        blocked: plugins named by ``-p no:NAME``.
    """

    debug: bool = False
    external: bool = True
    blocked: tuple[str, ...] = ()


def split_switches(argv: Sequence[str]) -> tuple[Switches, list[str]]:
    """Take ``--debug``, ``--no-plugins`` and ``-p no:NAME`` out of ``argv``, up to a ``--``.

    Raises:
        UserError: ``-p`` without ``no:NAME``.
    """
    rest: list[str] = []
    blocked: list[str] = []
    debug, external = os.environ.get("MAQUETTE_DEBUG", "") not in ("", "0"), True
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            rest += [word, *words]
            break
        if word == "--debug":
            debug = True
        elif word == "--no-plugins":
            external = False
        elif word == "-p" or word.startswith("-pno:"):
            blocked.append(_blocked(word.removeprefix("-p") or (words.pop(0) if words else "")))
        else:
            rest.append(word)
    return Switches(debug, external, tuple(blocked)), rest


def _blocked(word: str) -> str:
    prefix, _, name = word.partition("no:")
    if prefix or not name:
        raise UserError(f"-p{' ' if word else ''}{word}: it leaves out a plugin, as in: -p no:nerf")
    return name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: the words after the program's name; None takes them from the process.
    """
    prepare()
    switches = Switches()
    try:
        switches, words = split_switches(sys.argv[1:] if argv is None else argv)
        discovery.configure(switches.blocked, switches.external)
        from core.cli.app import app

        result = app(words or ["--help"], prog_name=_program(), standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:  # `maquette plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error, switches.debug)


def _program() -> str:
    name = Path(sys.argv[0]).name
    return name if name in ("launch.py", "maquette") else "maquette"


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def _report(error: Exception, debug: bool) -> int:
    if type(error).__name__ == "Abort":
        return _say("interrupted", 130)
    if debug:
        traceback.print_exc()
    if isinstance(error, UserError):
        return _say("\n".join(f"error: {line}" for line in str(error).splitlines()), 2)
    if callable(describe := getattr(error, "format_message", None)):  # the parser's own refusals
        sentence = describe()
        stop = "" if sentence.endswith((".", "?", "!")) else "."
        return _say(f"error: {sentence}{stop}{_see_help(error)}", 2)
    if isinstance(error, ModuleNotFoundError) and (lacking := _lacking(error.name or "")):
        return _say(f"error: {lacking}", 2)
    hint = "" if debug else " Run again with --debug to see where."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return _say(f"error: {error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}.{hint}", 2)
    return _say(f"error: {type(error).__name__}: {' '.join(str(error).split())}.{hint}", 1)


def _lacking(module: str) -> str:
    """What to do about a module that is not installed; nothing where it is one of Maquette's own."""
    top = module.partition(".")[0]
    if top in ("", "core", "plugins"):
        return ""
    return f"the package '{top}' is not installed for {sys.executable}. In a checkout: make setup, or pip install -e ."


def _see_help(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f" See: {context.command_path} --help" if context is not None else ""
