"""Schedules: a number that changes over a run, written so that its unit cannot be mistaken.

Accepted in a configuration:

* ``0.5``: constant;
* ``{from: 0.98, to: 0.48}``: linear over the whole run;
* ``{from: 0, to: 10, start: 1000, end: 80%}``: linear between two times, constant outside;
* ``{points: {0: 1.0, 25%: 0.5, 100%: 0.1}}``: piecewise linear, in any order of writing, constant outside.

A time is an integer (steps) or a percentage (of the run); never a bare fraction, so 1 step and 100 % differ in writing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

Time = int | str
KEYS = ("from", "to", "start", "end", "points")
"""What a schedule written as a mapping may hold."""


def parse_time(time: Time) -> tuple[float, bool]:
    """``(value, is_fraction)`` of a time such as 500 or ``"80%"``.

    Raises:
        ValueError: neither a non-negative integer nor a percentage in 0..100.
    """
    if isinstance(time, int) and not isinstance(time, bool) and time >= 0:
        return float(time), False
    text = str(time).strip() if isinstance(time, str) else ""
    if text.isascii() and text.isdigit():
        return float(text), False
    if text.endswith("%"):
        try:
            value = float(text[:-1]) / 100
        except ValueError:
            value = -1.0
        if 0.0 <= value <= 1.0:
            return value, True
    raise ValueError(f"a time is a number of steps (500) or a share of the run (80%), not {time!r}")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"the values of a schedule are numbers, not {value!r}")
    return float(value)


class Schedule:
    """Piecewise-linear value of the step; see the module's text for the accepted forms.

    Args:
        points: pairs of (time, value); steps and shares may be mixed, so their order is known with the run's length.

    Raises:
        ValueError: no point, a malformed time, one time twice, or a value that is no finite number.
    """

    def __init__(self, points: list[tuple[Time, float]]) -> None:
        if not points:
            raise ValueError("a schedule needs at least one point")
        self.points = [(parse_time(t), _number(v)) for t, v in points]
        if len({time for time, _ in self.points}) < len(points):
            raise ValueError("a schedule has two values at one time; write a jump over one step ({50: 1, 51: 0})")
        self._ramp = False
        constant = len(points) == 1 and self.points[0][0] == (0.0, False)
        self._source: Any = points[0][1] if constant else {"points": dict(points)}

    @classmethod
    def parse(cls, source: Any) -> Schedule:
        """A schedule from its written form.

        Raises:
            ValueError: with the accepted forms, when ``source`` is none of them.
        """
        if isinstance(source, Schedule):
            return source
        schedule = cls._parse(source)
        schedule._source = source
        return schedule

    @classmethod
    def _parse(cls, source: Any) -> Schedule:
        if isinstance(source, (int, float)) and not isinstance(source, bool):
            return cls([(0, source)])
        if isinstance(source, Mapping):
            keys = set(source)
            if keys == {"points"} and isinstance(source["points"], Mapping):
                return cls(list(source["points"].items()))
            if {"from", "to"} <= keys <= {"from", "to", "start", "end"}:
                start, end = source.get("start", 0), source.get("end", "100%")
                return cls._between(start, source["from"], end, source["to"])
        raise ValueError(
            f"a schedule is a number, {{from: a, to: b, start: 0, end: 80%}} or {{points: {{0: a, 50%: b}}}}, "
            f"not {source!r}"
        )

    @classmethod
    def _between(cls, start: Time, first: float, end: Time, last: float) -> Schedule:
        (t0, share0), (t1, share1) = parse_time(start), parse_time(end)
        if share0 == share1 and t0 >= t1:
            raise ValueError(f"a schedule must start before it ends, not start at {start} and end at {end}")
        ramp = cls([(start, first), (end, last)])
        ramp._ramp = True
        return ramp

    @property
    def extent(self) -> tuple[float, float]:
        """The least and the greatest value it takes."""
        values = [value for _, value in self.points]
        return min(values), max(values)

    def at(self, step: int, total: int) -> float:
        """The value at ``step`` of a run of ``total`` steps; the last step of the run is at 100 %.

        Where a step and a share fall on one time the value jumps just after it. A ramp whose start turns out to lie
        behind its end (1000 steps, 80 % of a run of 1100) jumps at its start.
        """
        last = max(total - 1, 1)
        points = [(v * last if share else v, y) for (v, share), y in self.points]
        if self._ramp:
            points[1] = (max(points[0][0], points[1][0]), points[1][1])
        points.sort(key=lambda point: point[0])
        if step <= points[0][0]:
            return points[0][1]
        for (t0, y0), (t1, y1) in pairwise(points):
            if step < t1:
                return y0 + (y1 - y0) * (step - t0) / (t1 - t0)
        return points[-1][1]

    def __repr__(self) -> str:
        return f"Schedule({self.dump()!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and (self.points, self._ramp) == (other.points, other._ramp)

    def __hash__(self) -> int:
        return hash((tuple(self.points), self._ramp))

    def dump(self) -> Any:
        """The written form, for a resolved configuration."""
        return self._source

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(lambda s: s.dump())
        )
