"""Who is confirmed: the fastest that the data may certify, in an order that leaves time for a safe one."""

from __future__ import annotations

from search.toys import Dial, Engine, Halve, InferenceMode, trial
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Trial
from vivace.search.verdict.finalists import choose, following, is_safe

HELD, UNSURE = QualityVerdict.HELD, QualityVerdict.CANNOT_TELL


def raced(plan: Plan, speedup: float, verdict: QualityVerdict | None = None) -> Trial:
    quality = None if verdict is None else Quality(verdict, "Tango", 300, 0.01)
    return trial(plan, speedup).replace(quality=quality)


RISKY = raced(Plan((Halve(), Engine())), 8.0, UNSURE)
SAFE = raced(Plan((Dial(keep=3), Engine())), 6.0, HELD)
ROUNDED = raced(Plan((Engine(),)), 3.0)
SLOWER = raced(Plan((InferenceMode(),)), 1.2)


def test_the_fastest_is_judged_first_while_there_is_time_for_a_safe_one_after_it() -> None:
    waiting = [RISKY, SAFE, ROUNDED]

    assert following(waiting, lambda risky, safe: True) is RISKY
    assert following(waiting, lambda risky, safe: False) is SAFE


def test_time_is_asked_for_the_best_safe_one() -> None:
    asked = []
    following([RISKY, SAFE, ROUNDED], lambda risky, safe: bool(asked.append((risky, safe))))

    assert asked == [(RISKY, SAFE)]


def test_with_nothing_safe_the_fastest_goes_first_whatever_the_time() -> None:
    assert following([RISKY], lambda risky, safe: False) is RISKY


def test_what_only_rounds_is_safe_and_what_changes_answers_is_when_it_was_held() -> None:
    assert [is_safe(t) for t in (RISKY, SAFE, ROUNDED)] == [False, True, True]


def test_as_many_change_answers_as_the_data_can_certify_and_one_that_rounds_is_always_there() -> None:
    assert choose([RISKY, SAFE, ROUNDED, SLOWER], most=3, most_verdicts=2) == ([RISKY, SAFE, ROUNDED], 2)
    assert choose([RISKY, SAFE, ROUNDED, SLOWER], most=3, most_verdicts=1) == ([SAFE, ROUNDED, SLOWER], 1)
    assert choose([ROUNDED, SLOWER], most=3, most_verdicts=3) == ([ROUNDED, SLOWER], 0)


def test_two_that_compute_the_same_need_one_verdict() -> None:
    again = raced(Plan((Halve(), Engine(), InferenceMode())), 7.0, UNSURE)

    assert choose([RISKY, again, SAFE], most=3, most_verdicts=3) == ([RISKY, SAFE], 2)
