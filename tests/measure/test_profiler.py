"""A program under a profiler: warmed first, called as often as fits, its calls timed beside its operators."""

from __future__ import annotations

import time
from typing import Any

import pytest

from vivace.core.compute import OperatorTime, Profile
from vivace.measure.services.profiler import WARM_CALLS, Profiler


class Sleeper:
    """A program that sleeps, and remembers how often it was called before and after it was told to start."""

    form = "sleep"
    most_calls = 5

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.calls: list[int] = []
        self.warm = 0

    def __call__(self, number: int) -> None:
        self.calls.append(number)
        time.sleep(self.seconds)

    def start(self) -> None:
        self.warm = len(self.calls)

    def stop(self) -> tuple[tuple[OperatorTime, ...], str]:
        return (OperatorTime("sleep", ("all",), self.seconds),), "counted by hand"


def profiled(program: Sleeper) -> Profile:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((number,), {}) for number in (7, 8)]
    return Profile.from_json(Profiler(program, calls).profile())


@pytest.mark.parametrize(("seconds", "count"), [(0.001, 5), (0.25, 4), (0.4, 3)])
def test_as_many_calls_are_profiled_as_fit_a_second(seconds: float, count: int) -> None:
    program = Sleeper(seconds)

    profiled(program)

    assert program.warm == WARM_CALLS
    assert abs(len(program.calls) - WARM_CALLS - count) <= (0 if seconds != 0.25 else 1)
    assert program.calls[:4] == [7, 8, 7, 8]


def test_the_whole_call_is_the_median_and_what_operators_do_not_take_is_overhead() -> None:
    found = profiled(Sleeper(0.01))

    assert found.call_seconds == pytest.approx(0.01, rel=0.5)
    assert (found.form, found.note) == ("sleep", "counted by hand")
    assert found.overhead_seconds == pytest.approx(found.call_seconds - 0.01)
