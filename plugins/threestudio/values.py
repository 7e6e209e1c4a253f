"""Their numbers in our units and forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from core.errors import UserError

OBJECT = 1.6
"""Our lengths in theirs, for an object before a camera: theirs reaches about 0.56, ours 0.9."""


def length_of(radius: float) -> float:
    """Our length of one unit of theirs: an object of theirs lies well inside its cube, whose half side is ``radius``;
    a scene (larger than 2) fills it."""
    return OBJECT if radius <= 2 else 1 / radius


def points(value: Sequence[Any], where: str) -> dict[int, float]:
    """Steps and values of a scheduled number: ``[first step, value, value, last step, (value, step) ...]``, or three
    numbers from step 0. A last step written with a point counts epochs, and their data has but one: the first value
    stays.

    Raises:
        UserError: it is no such list.
    """
    given = [0, *value] if len(value) == 3 else list(value)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in given)
    if not numbers or len(given) < 4 or len(given) % 2:
        raise UserError(f"{where}: expected a number, or [step, value, value, step], found {list(value)!r}")
    if isinstance(given[3], float):
        return {0: float(given[1])}
    found = {int(given[0]): float(given[1])}
    for k in range(2, len(given), 2):
        found[int(given[k + 1])] = float(given[k])
    times = [int(given[0]), *(int(t) for t in given[3::2])]
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise UserError(f"{where}: a schedule goes from step to later step, not {list(value)!r}")
    return found


def schedule(value: Any, where: str, factor: float = 1.0) -> Any:
    """A number or a scheduled one as ours.

    Raises:
        UserError: it is neither.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return tidy(value * factor)
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a number, or [step, value, value, step], found {value!r}")
    found = {step: tidy(y * factor) for step, y in points(value, where).items()}
    return next(iter(found.values())) if len(set(found.values())) == 1 else {"points": found}


def vanishes(value: Any) -> bool:
    """Whether a number, or a scheduled one, is 0 throughout."""
    return not any(points(value, "a schedule").values()) if isinstance(value, list) else not value


def tidy(value: float) -> float:
    """Without the noise of a multiplication: six digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def precision(value: Any) -> str:
    """Lightning's name of a precision as ours."""
    names = {"16-mixed": "16-mixed", "16": "16-mixed", "bf16-mixed": "bf16-mixed", "bf16": "bf16-mixed"}
    return names.get(str(value), "32-true")


def milestones(values: Any, steps: Sequence[int], where: str) -> Any:
    """A size that changes at given steps, as a schedule that jumps there.

    Raises:
        UserError: as many sizes as steps and one more were expected.
    """
    if not isinstance(values, list):
        return values
    if len(values) != len(steps) + 1:
        raise UserError(f"{where}: expected {len(steps) + 1} values for {len(steps)} resolution_milestones")
    found = {0: values[0]}
    for step, before, after in zip(steps, values[:-1], values[1:], strict=True):
        found |= {max(step - 1, 0): before, step: after}
    return {"points": found} if len(found) > 1 else values[0]


def decay(warmup: int, first: float, gamma: float, steps: int, pieces: int = 8) -> dict[str, Any]:
    """A rate that rises linearly from ``first`` to 1 and then falls by ``gamma`` each step, in straight pieces."""
    found = {0: first, warmup: 1.0} if warmup else {0: 1.0}
    for k in range(1, pieces + 1):
        step = warmup + (steps - warmup) * k // pieces
        found[step] = tidy(math.pow(gamma, step - warmup))
    return {"points": found}
