"""Who leads a search: close rivals are ranked by what they show against each other, not by a noisy original."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest

from search.toys import Engine, Halve, trial
from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Trial
from vivace.measure.paired import StopRule
from vivace.measure.stats import FEWEST_FOR_INTERVAL
from vivace.search.champion import Champion, is_lost

RULE = StopRule(max_blocks=6, max_seconds=1.0)
FIRST, SECOND = Plan((Engine(),)), Plan((Halve(),))
DIED = WorkerFailure(Outcome.CRASHED, "SIGSEGV at call 50")


class FalseArm:
    """All calls take `seconds_per_call`; `error`, when given, is raised instead."""

    distinct_inputs = 8
    mix = None

    def __init__(self, seconds_per_call: float, error: WorkerFailure | None = None, peak_bytes: int = 1000) -> None:
        self.peak_bytes = peak_bytes
        self.seconds_per_call = seconds_per_call
        self.seconds: list[float] = []
        self.is_closed = False
        self.timed = 0
        self._error = error

    def time(self, start: int, calls: int) -> list[float]:
        self.timed += 1
        if self._error is not None:
            raise self._error
        return [self.seconds_per_call] * calls

    def close(self) -> None:
        self.is_closed = True


def rank(champion: Champion, arm: FalseArm, raced: Trial) -> Trial:
    """As the laboratory does: whoever does not become the champion is closed."""
    with contextlib.ExitStack() as kept:
        kept.callback(arm.close)
        found = champion.duel(arm)  # type: ignore[arg-type]
        return champion.rank(arm, raced, found, kept)  # type: ignore[arg-type]


def raced(plan: Plan, value: float, high: float) -> Trial:
    return trial(plan, value).replace(speedup=Interval(value, 2 * value - high, high))


def test_close_rivals_are_ranked_by_their_duel_and_not_by_their_races() -> None:
    champion, slower, faster = Champion(RULE), FalseArm(0.0011), FalseArm(0.0010)
    first = rank(champion, slower, raced(FIRST, 7.0, 9.0))
    second = rank(champion, faster, raced(SECOND, 6.0, 8.0))  # the original was disturbed during its race

    assert first.standing == 7.0
    assert second.standing == pytest.approx(7.7)
    assert second.rank_speedup > first.rank_speedup
    assert (slower.is_closed, faster.is_closed) == (True, False)
    champion.close()
    assert faster.is_closed


def test_who_loses_the_duel_is_closed_and_stands_below_the_champion() -> None:
    champion, fast, slow = Champion(RULE), FalseArm(0.001), FalseArm(0.0015)
    rank(champion, fast, raced(FIRST, 6.0, 8.0))
    beaten = rank(champion, slow, raced(SECOND, 7.0, 9.0))

    assert beaten.standing == pytest.approx(4.0)
    assert (fast.is_closed, slow.is_closed) == (False, True)


def test_who_is_far_behind_is_not_timed_against_the_champion() -> None:
    champion, fast, slow = Champion(RULE), FalseArm(0.001), FalseArm(0.01)
    rank(champion, fast, raced(FIRST, 6.0, 8.0))
    behind = rank(champion, slow, raced(SECOND, 1.0, 1.2))

    assert behind.standing == pytest.approx(0.6)
    assert (slow.timed, slow.is_closed) == (0, True)


def test_a_first_race_that_was_too_kind_keeps_nobody_away() -> None:
    champion, lucky, better = Champion(RULE), FalseArm(0.0012), FalseArm(0.001)
    rank(champion, lucky, raced(FIRST, 9.4, 9.8))
    second = rank(champion, better, raced(SECOND, 6.1, 6.2))

    assert second.rank_speedup > 9.4
    assert lucky.is_closed


def test_a_duel_ends_as_soon_as_it_is_lost() -> None:
    champion, fast, slow = Champion(RULE), FalseArm(0.001), FalseArm(0.002)
    rank(champion, fast, raced(FIRST, 6.0, 8.0))
    found = champion.duel(slow)  # type: ignore[arg-type]

    assert is_lost(found)
    assert slow.timed == 2 * FEWEST_FOR_INTERVAL
    assert not is_lost(None)


def test_a_champion_that_dies_costs_only_its_place() -> None:
    champion, dying, next_one = Champion(RULE), FalseArm(0.001, DIED), FalseArm(0.002)
    rank(champion, dying, raced(FIRST, 6.0, 8.0))
    found = rank(champion, next_one, raced(SECOND, 5.0, 7.0))

    assert found.standing == 5.0
    assert (dying.is_closed, next_one.is_closed) == (True, False)


def test_a_challenger_that_dies_is_blamed_and_the_champion_stays() -> None:
    champion, fast, dying = Champion(RULE), FalseArm(0.001), FalseArm(0.001, DIED)
    rank(champion, fast, raced(FIRST, 6.0, 8.0))

    with pytest.raises(WorkerFailure, match="SIGSEGV"):
        rank(champion, dying, raced(SECOND, 5.0, 7.0))
    assert (fast.is_closed, dying.is_closed) == (False, True)


def test_what_was_not_raced_has_no_standing() -> None:
    unraced: Any = dataclasses.replace(raced(FIRST, 2.0, 3.0), speedup=None)

    assert rank(Champion(RULE), FalseArm(0.001), unraced).rank_speedup == 0.0


def test_what_is_too_large_to_be_kept_beside_others_is_ranked_and_let_go() -> None:
    champion, large, small, larger = Champion(RULE), *(FalseArm(0.001, peak_bytes=size) for size in (10**15, 1, 10**15))
    first = rank(champion, large, raced(FIRST, 6.0, 8.0))
    second = rank(champion, small, raced(SECOND, 5.0, 7.0))
    third = rank(champion, larger, raced(FIRST, 7.0, 9.0))

    assert (first.standing, second.standing, third.standing) == (None, 5.0, pytest.approx(5.0))
    assert (large.is_closed, small.is_closed, larger.is_closed) == (True, False, True)
