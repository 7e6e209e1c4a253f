from __future__ import annotations

import pickle

import numpy as np
import pytest

from core.config.schedule import Schedule, parse_time


@pytest.mark.parametrize("total", [1, 2, 7, 400])
def test_points_are_numpys_interp(total: int) -> None:
    rng = np.random.default_rng(total)
    for _ in range(20):
        shares = np.sort(rng.choice(101, size=5, replace=False))
        values = rng.normal(size=5)
        schedule = Schedule.parse({"points": {f"{s}%": float(v) for s, v in zip(shares, values, strict=True)}})
        steps = np.arange(total + 3)
        times = shares / 100 * max(total - 1, 1)
        np.testing.assert_allclose(
            [schedule.at(int(s), total) for s in steps], np.interp(steps, times, values), atol=1e-12
        )


def test_steps_are_numpys_interp() -> None:
    schedule = Schedule.parse({"points": {10: 1.0, 0: 3.0, 25: -2.0}})  # in any order
    steps = np.arange(40)
    got = [schedule.at(int(s), 40) for s in steps]
    np.testing.assert_allclose(got, np.interp(steps, [0, 10, 25], [3, 1, -2]), atol=1e-12)


def test_ends_are_exact() -> None:
    schedule = Schedule.parse({"from": 0.98, "to": 0.48})
    assert schedule.at(0, 400) == 0.98
    assert schedule.at(399, 400) == 0.48
    assert schedule.at(10_000, 400) == 0.48


def test_between_two_times() -> None:
    schedule = Schedule.parse({"from": 0, "to": 10, "start": 100, "end": "80%"})
    steps = np.arange(1001)
    np.testing.assert_allclose(
        [schedule.at(int(s), 1001) for s in steps], np.interp(steps, [100, 800], [0, 10]), atol=1e-12
    )


def test_one_step_is_not_the_whole_run() -> None:
    assert Schedule.parse({"from": 0, "to": 1, "end": 1}).at(1, 100) == 1
    assert Schedule.parse({"from": 0, "to": 1, "end": "100%"}).at(1, 100) == pytest.approx(1 / 99)


def test_a_short_run_does_not_turn_a_ramp_round() -> None:
    ramp = Schedule.parse({"from": 0, "to": 10, "start": 1000, "end": "80%"})
    assert [ramp.at(s, 500) for s in (0, 400, 499)] == [0, 0, 0]
    assert [ramp.at(s, 1100) for s in (900, 1000, 1001)] == [0, 0, 10]


def test_constant_and_single_point() -> None:
    assert {Schedule.parse(0.5).at(s, 10) for s in range(12)} == {0.5}
    assert Schedule([(500, 2.0)]).at(0, 10) == 2.0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("half", "a schedule is a number, {from: a, to: b, start: 0, end: 80%} or {points: {0: a, 50%: b}}, not 'half'"),
        (True, "a schedule is a number"),
        (None, "a schedule is a number"),
        ([0, 1], "a schedule is a number"),
        ({"from": 1}, "a schedule is a number"),
        ({"from": 0, "to": 1, "stop": 3}, "a schedule is a number"),
        ({"points": [0, 1]}, "a schedule is a number"),
        ({"points": {}}, "a schedule needs at least one point"),
        ({"from": "a", "to": 1}, "the values of a schedule are numbers, not 'a'"),
        ({"from": 0, "to": True}, "the values of a schedule are numbers, not True"),
        ({"from": 0, "to": float("nan")}, "the values of a schedule are numbers, not nan"),
        (float("inf"), "the values of a schedule are numbers, not inf"),
        ({"points": {0.5: 1}}, "a time is a number of steps (500) or a share of the run (80%), not 0.5"),
        ({"points": {-1: 1}}, "a time is a number of steps (500) or a share of the run (80%), not -1"),
        ({"points": {"120%": 1}}, "not '120%'"),
        ({"points": {"nan%": 1}}, "not 'nan%'"),
        ({"points": {True: 1}}, "not True"),
        ({"points": {0: 1, "0": 2}}, "a schedule has two values at one time"),
        (
            {"from": 0, "to": 1, "start": "80%", "end": "20%"},
            "a schedule must start before it ends, not start at 80% and end at 20%",
        ),
        ({"from": 0, "to": 1, "start": 5, "end": 5}, "a schedule must start before it ends, not start at 5 and end"),
    ],
)
def test_refusals(source: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Schedule.parse(source)
    assert message in str(caught.value)


def test_no_points() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        Schedule([])


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule([(0, 1.0)]),
        Schedule([(500, 1.0)]),
        Schedule([("33.333333333%", 1.0), (7, 2.0)]),
        Schedule.parse({"from": 1, "to": 2, "end": "12.5%"}),
        Schedule.parse(3),
    ],
)
def test_dump_parses_back(schedule: Schedule) -> None:
    again = Schedule.parse(schedule.dump())
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_equality() -> None:
    assert Schedule.parse(1) == Schedule([(0, 1.0)])
    assert Schedule.parse(1) != Schedule.parse(2)
    assert Schedule.parse(1) != 1


def test_times() -> None:
    assert parse_time(500) == (500.0, False)
    assert parse_time("500") == (500.0, False)
    assert parse_time("80%") == (0.8, True)
    assert parse_time(" 80 % ") == (0.8, True)
    for bad in ("", "%", "²", "1e3", "-1", "80 percent"):
        with pytest.raises(ValueError, match="a time is a number of steps"):
            parse_time(bad)
