"""When a winner has paid for itself, and who wins when the number of calls is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.toys import Engine, InferenceMode
from search.toys import trial as raced
from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Budget, Gate
from vivace.core.result import Trial
from vivace.core.technique import Technique
from vivace.core.workload import Objective
from vivace.search.account.payback import break_even_calls, break_even_steps, total_seconds, total_speedup
from vivace.search.options import Options
from vivace.search.verdict.confirm import best_of


def times(median: float, load: float, first: float) -> ArmTimes:
    return ArmTimes(median, None, None, 100, load, first, True, 0)


def confirmed(
    candidate: ArmTimes, build: float = 0.0, raced_load: float = 0.0, technique: Technique | None = None
) -> Trial:
    """A trial that is FASTER than an original of 10 ms a call, which takes 0.2 s to load and 0.1 s for its first."""
    baseline = times(0.010, 0.2, 0.1)
    ratio = baseline.median_seconds / candidate.median_seconds
    speedup = Interval(ratio, ratio, ratio)
    comparison = Comparison(speedup, SpeedVerdict.FASTER, baseline, candidate, 20, 3, 0.01, ((ratio,),))
    plan = Plan.of([technique or Engine()])
    return raced(plan, ratio).replace(confirmed=comparison, build_seconds=build, load_seconds=raced_load)


def options(calls: int | None = None) -> Options:
    return Options(Budget(), Gate.STRICT, Objective.LATENCY, 60.0, None, {}, calls=calls)


def test_the_break_even_is_what_is_paid_once_over_what_a_call_saves() -> None:
    trial = confirmed(times(0.006, 1.0, 0.5), build=2.0)

    assert break_even_calls(trial) in (800, 801)  # (2 + 1 + 0.5 - 0.3) s at 4 ms a call, which floats do not hold


@given(st.floats(0.001, 0.0099), st.floats(0, 3), st.floats(0, 3), st.floats(0, 2))
def test_before_the_break_even_the_original_was_cheaper_and_from_it_on_the_change_is(
    median: float, load: float, first: float, build: float
) -> None:
    calls = break_even_calls(confirmed(times(median, load, first), build))
    assert calls is not None

    def ahead(count: int) -> float:
        return (0.3 + count * 0.010) - (build + load + first + count * median)

    assert ahead(calls) >= -1e-9
    assert calls == 1 or ahead(calls - 1) <= 1e-9


def test_what_opens_faster_than_the_original_pays_from_the_first_call_on() -> None:
    assert break_even_calls(confirmed(times(0.005, 0.0, 0.01))) == 1


def test_what_saves_no_time_a_call_never_pays() -> None:
    assert break_even_calls(confirmed(times(0.010, 0.0, 0.0))) is None


def test_a_program_that_compiled_when_it_was_first_loaded_is_charged_for_it() -> None:
    trial = confirmed(times(0.005, 0.5, 0.5), raced_load=30.0)

    assert total_seconds(trial, 1000) == pytest.approx(35.0)


def test_a_trial_that_was_not_confirmed_has_no_break_even() -> None:
    with pytest.raises(ValueError, match="engine was not confirmed"):
        break_even_calls(raced(Plan.of([Engine()]), 2.0))


def test_a_count_of_calls_chooses_by_the_total_time() -> None:
    heavy = confirmed(times(0.002, 30.0, 0.0), technique=Engine())
    light = confirmed(times(0.006, 0.3, 0.0), technique=InferenceMode())
    both = [heavy, light]

    assert best_of(both, options()) is heavy
    assert best_of(both, options(calls=1000)) is light
    assert best_of(both, options(calls=100_000)) is heavy


def test_the_original_wins_when_there_are_too_few_calls_to_make_up_for_loading() -> None:
    heavy = confirmed(times(0.002, 30.0, 0.0))

    assert total_speedup(heavy, 100) < 1
    assert best_of([heavy], options(calls=100)) is None


@pytest.mark.parametrize(
    ("verdict", "candidate", "steps"),
    [(SpeedVerdict.FASTER, 0.008, 5000), (SpeedVerdict.UNDECIDED, 0.008, None), (SpeedVerdict.FASTER, 0.010, None)],
)
def test_choosing_a_training_s_plan_pays_only_where_it_was_shown_to_be_faster(
    verdict: SpeedVerdict, candidate: float, steps: int | None
) -> None:
    sides = times(0.010, 0.2, 0.1), times(candidate, 0.2, 0.1)
    found = Comparison(Interval(1.2, 1.1, 1.3), verdict, *sides, 20, 3, 0.0, ())
    assert break_even_steps(found, spent_seconds=10.0) == steps
    assert break_even_steps(None, spent_seconds=10.0) is None
