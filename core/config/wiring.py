"""Does every component of a stage get the signals it needs from the others and from the job itself?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from core.config.nodes import Node
from core.config.values import Use
from core.config.words import with_article
from core.signals import alternatives, missing

_FROM_JOB = {"text": "prompt", "image": "image"}
"""Signals that the job supplies itself, by the option of the task which holds them."""
_MADE = {"draw": "image"}
"""Options by which a task makes such a signal itself."""


def signals_of(use: Use) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``(needs, gives)``: by the component's options where it refines them, else as registered."""
    refine = getattr(use.target, "signals", None)
    found = refine(use.spec.options) if refine is not None and use.spec.options is not None else None
    needs, gives = (use.entry.needs, use.entry.gives) if found is None else found
    return tuple(needs), tuple(gives)


def job_gives(options: Any, written: Mapping[str, Node]) -> set[str]:
    """What the task's own options supply: ``text`` with a prompt, ``image`` with a picture given or to be drawn.

    Args:
        options: the task's options; None where they are faulty, and then what was ``written`` counts.
    """
    names = [(name, signal) for signal, name in _FROM_JOB.items()] + list(_MADE.items())
    if options is None:
        return {signal for name, signal in names if name in written and written[name].raw}
    return {signal for name, signal in names if getattr(options, name, None)}


def unmet(uses: Sequence[Use], given: Collection[str], registry: Any, lost: Collection[str] = ()) -> list[str]:
    """One sentence per need that nothing meets, with the components that would.

    Args:
        uses: every component of the stage, the task included.  given: what the job supplies.
        lost: kinds of which a component was not found; needs which that kind may meet are passed over.
    """
    signals = [signals_of(use) for use in uses]
    problems = []
    for index, use in enumerate(uses):
        others = {s for i, (_, gives) in enumerate(signals) if i != index for s in gives}
        for need in missing(signals[index][0], others | set(given)):
            suppliers = [e for s in alternatives(need) for e in registry.suppliers(s) if e != use.entry]
            # What was not found may be what would have given it, the more so where nothing else does.
            if not any(e.kind in lost for e in suppliers) and (suppliers or not lost):
                who = f"{use.spec.kind} '{use.spec.name}'"
                cure = _cure(need, suppliers, [u.entry for u in uses])
                problems.append(f"{use.where}: {who} needs {need}; nothing here gives it{cure}")
    return problems


def _cure(need: str, suppliers: Sequence[Any], present: Sequence[Any]) -> str:
    """What would give it; a component that is here already gives it by other options."""
    names = [f"{with_article(_FROM_JOB[s])} (key '{_FROM_JOB[s]}')" for s in alternatives(need) if s in _FROM_JOB]
    names += dict.fromkeys(
        f"{e.kind} {e.qualified}{f' by its options (describe {e.name})' if e in present else ''}" for e in suppliers
    )
    if not names:
        return ", and no loaded plugin has a component that does"
    rest = f" (and {len(names) - 6} more)" if len(names) > 6 else ""
    return f". What does: {', '.join(names[:6])}{rest}"
