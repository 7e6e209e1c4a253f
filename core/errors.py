"""Errors that a user can act on: one clear sentence each, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """A user's mistake: the message says what was wrong, where, and what was probably meant."""


class ConfigError(UserError):
    """Every problem of a configuration at once, one line each.

    Args:
        problems: full sentences, each with its place (``file:line``) where known.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class NonFiniteLoss(UserError):
    """A loss became NaN or infinite; the state of that step has been saved."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'levels'?"`` for a near miss, else the known names, else nothing."""
    names = sorted(set(known))
    near = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f" Known: {shown}."
