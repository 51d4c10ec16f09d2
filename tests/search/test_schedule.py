"""What a search may still do with the time that is left."""

from __future__ import annotations

from search.toys import Engine, Halve, InferenceMode, Turbine, trial
from vivace.core.plan import Plan
from vivace.measure.clock import FakeClock
from vivace.search.schedule import Schedule


def schedule(seconds: float = 120.0) -> tuple[Schedule, FakeClock]:
    clock = FakeClock()
    return Schedule(seconds, clock.now(), 3, clock, opening_seconds=2.0), clock


def test_a_plan_that_is_slow_to_build_needs_more_time_than_another() -> None:
    class SlowEngine(Engine):
        build_seconds = 60.0

    planned, clock = schedule()
    clock.advance(40)

    assert planned.time_for_a_trial(Plan.of([Engine()]), None)
    assert not planned.time_for_a_trial(Plan.of([SlowEngine()]), None)


def test_what_trials_took_takes_the_place_of_guesses_for_their_own_compiler_only() -> None:
    planned, _ = schedule()
    before = planned.expected_seconds(Plan.of([Turbine()]))

    for seconds in (30.0, 31.0, 90.0):
        planned.tried(Plan.of([Engine()]), seconds)

    assert planned.expected_seconds(Plan.of([Halve(), Engine()])) == 31.0
    assert planned.expected_seconds(Plan.of([Turbine()])) == before


def test_time_is_kept_to_confirm_the_leader() -> None:
    planned, clock = schedule(60)
    leader = trial(Plan.of([InferenceMode()]), 1.5)

    clock.advance(60 - planned.confirm_seconds(leader) - 1)

    assert planned.time_to_confirm(leader)
    assert not planned.time_for_a_trial(Plan.of([Engine()]), leader)


def test_no_trial_may_take_all_the_time() -> None:
    planned, _ = schedule(120)

    assert planned.allowed(None) == 30.0
    assert schedule(40)[0].allowed(None) <= 20.0
