"""Who is confirmed: the fastest that the data may certify, in an order that leaves time for a safe one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.toys import Dial, Engine, Halve, InferenceMode, trial
from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Trial
from vivace.measure.stats import normal_quantile
from vivace.search.verdict.chance import chance_of
from vivace.search.verdict.conclude import unclaimed
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


def chosen(fit: list[Trial], chances: dict[str, float], most_verdicts: int = 3) -> tuple[list[Trial], int]:
    """Three finalists at the most; a verdict that is shared by k is certified with a k-th of its chance."""
    return choose(fit, 3, most_verdicts, lambda t: t.rank_speedup, lambda t, verdicts: chances[str(t.plan)] / verdicts)


def test_those_are_chosen_from_which_most_can_be_expected() -> None:
    hopeless, likely = str(RISKY.plan), str(SAFE.plan)

    assert chosen([RISKY, SAFE, ROUNDED], {hopeless: 0.05, likely: 0.9}) == ([SAFE, ROUNDED], 1)
    assert chosen([RISKY, SAFE, ROUNDED], {hopeless: 0.9, likely: 0.9}) == ([RISKY, ROUNDED], 1)
    assert chosen([RISKY, SAFE, ROUNDED], {hopeless: 0.0, likely: 0.0}) == ([ROUNDED], 0)


def test_two_verdicts_are_asked_for_where_sharing_the_error_costs_little() -> None:
    def chance(trial: Trial, verdicts: int) -> float:
        return 0.6 if verdicts == 1 else 0.58

    found = choose([RISKY, SAFE, ROUNDED, SLOWER], 3, 3, lambda t: t.rank_speedup, chance)
    assert found == ([RISKY, SAFE, ROUNDED], 2)
    assert choose([RISKY, SAFE, ROUNDED, SLOWER], 3, 1, lambda t: t.rank_speedup, chance)[1] == 1


def test_the_best_that_only_rounds_is_always_there_and_alone_where_nothing_changes_answers() -> None:
    assert chosen([ROUNDED, SLOWER], {}) == ([ROUNDED, SLOWER], 0)


def test_two_that_compute_the_same_need_one_verdict() -> None:
    again = raced(Plan((Halve(), Engine(), InferenceMode())), 7.0, UNSURE)
    found, verdicts = choose([RISKY, again], 3, 3, lambda t: t.rank_speedup, lambda trial, verdicts: 0.5)

    assert (found, verdicts) == ([RISKY], 1)


@pytest.mark.parametrize(("drop", "upper"), [(0.0, 0.004), (0.003, 0.009), (0.008, 0.012), (0.012, 0.02)])
@pytest.mark.parametrize("verdicts", [1, 3])
def test_the_chance_is_the_share_of_confirm_parts_that_hold(drop: float, upper: float, verdicts: int) -> None:
    seen = Quality(HELD, "Tango", 400, 0.01, drop=drop, drop_upper=upper)
    error = (upper - drop) / 1.645
    chance = np.random.default_rng(0)
    true_drops = chance.normal(drop, error, 20_000)
    confirmed = chance.normal(true_drops, error * math.sqrt(400 / 600))
    held = confirmed + normal_quantile(1 - 0.05 / verdicts) * error * math.sqrt(400 / 600) <= 0.01

    assert chance_of(seen, 600, 0.05 / verdicts) == pytest.approx(held.mean(), abs=0.015)


def test_without_a_bound_the_verdict_of_the_select_part_is_all_there_is() -> None:
    fidelity = [Quality(verdict, "fidelity", 100, 0.01) for verdict in (HELD, UNSURE)]

    assert chance_of(fidelity[0], 100, 0.05) > chance_of(fidelity[1], 100, 0.05)


def test_nothing_is_claimed_of_an_original_whose_captured_graph_is_faster() -> None:
    times = ArmTimes(1e-3, None, None, 100, 0.1, 0.1, True, 0)
    faster = Comparison(Interval(1.03, 1.02, 1.04), SpeedVerdict.FASTER, times, times, 20, 1, 0.01, ((1.03,),))

    found = unclaimed(faster)

    assert (found.verdict, found.speedup) == (SpeedVerdict.UNDECIDED, faster.speedup)
    assert "nothing is claimed" in found.note


def test_a_captured_graph_that_is_slower_than_the_model_as_given_is_told() -> None:
    times = ArmTimes(1e-3, None, None, 100, 0.1, 0.1, True, 0)
    slower = Comparison(Interval(0.9, 0.89, 0.91), SpeedVerdict.SLOWER, times, times, 20, 1, 0.01, ((0.9,),), "warm")

    found = unclaimed(slower)

    assert (found.verdict, found.speedup) == (SpeedVerdict.SLOWER, slower.speedup)
    assert found.note == (
        "warm; the original's captured graph runs at 0.9 [0.89, 0.91] times the speed of the model as given, "
        "which is the faster one to keep"
    )
