"""What a search may still do with the time that is left."""

from __future__ import annotations

import pytest

from search.toys import Engine, Halve, InferenceMode, Prune, Repair, Turbine, trial
from vivace.core.measurement import ArmTimes, Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.result import Trial, TrialStage
from vivace.measure.clock import FakeClock
from vivace.search.schedule import (
    FORKED_SECONDS,
    JUDGING_SECONDS,
    LEAST_TRIAL_SECONDS,
    SPARE,
    TRIED_BEFORE_MORE,
    WARM_SECONDS,
    Schedule,
    longest_race,
)
from vivace.search.verdict.finalists import gambles_of


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


def test_a_trial_that_was_refused_says_nothing_of_how_long_a_race_takes() -> None:
    planned, clock = schedule()
    planned.tried(Plan.of([Engine()]), 1.0, was_raced=False)
    clock.advance(120 - 4.0)

    assert planned.expected_seconds(Plan.of([Halve(), Engine()])) == 1.0 + longest_race(120) + JUDGING_SECONDS
    assert not planned.time_for_a_trial(Plan.of([Halve(), Engine()]), None)


def test_a_plan_whose_quality_is_won_back_takes_longer_than_others_with_its_compiler() -> None:
    planned, _ = schedule()
    planned.tried(Plan.of([Prune(), Engine()]), 7.0)

    mended = Plan.of([Prune(), Repair(), Engine()])

    assert planned.expected_seconds(Plan.of([Prune(), Engine()])) == 7.0
    assert planned.expected_seconds(mended) > 7.0
    planned.tried(mended, 21.0)
    assert (planned.expected_seconds(mended), planned.expected_seconds(Plan.of([Engine()]))) == (21.0, 7.0)


def test_time_is_kept_to_confirm_the_leader() -> None:
    planned, clock = schedule(60)
    leader = trial(Plan.of([InferenceMode()]), 1.5)

    clock.advance(60 - planned.confirm_seconds(leader) - 1)

    assert planned.time_to_confirm(leader)
    assert not planned.time_for_a_trial(Plan.of([Engine()]), leader)


def test_two_first_plans_need_the_time_of_both_and_a_fifth_more_and_of_confirming_the_one_that_loads_longer() -> None:
    planned, clock = schedule(100)
    plans = [Plan.of([Engine()]), Plan.of([Halve(), Engine()])]
    loaded = Trial(plans[1], Outcome.OK, TrialStage.SEARCH, load_seconds=plans[1].build_seconds / 2)
    both = SPARE * sum(map(planned.expected_seconds, plans))
    clock.advance(100 - planned.confirm_seconds(loaded) - both - 0.1)

    assert planned.time_for_first_trials(plans)
    clock.advance(0.2)
    assert not planned.time_for_first_trials(plans)
    assert all(planned.time_for_a_trial(plan, None) for plan in plans)


def test_what_was_confirmed_before_is_what_may_have_to_be_published() -> None:
    planned, clock = schedule(60)
    winner, other = (trial(Plan.of([kind()]), 1.5) for kind in (Engine, InferenceMode))
    winner = winner.replace(load_seconds=3.0)
    clock.advance(60 - planned.confirm_seconds(other) - 1)
    assert planned.time_to_confirm(other)
    spare = planned.spare(other)

    planned.deliverable.append(winner)

    assert planned.publish_seconds(other) == planned.publish_seconds(winner) == planned.publish_seconds(None)
    assert not planned.time_to_confirm(other)
    assert planned.spare(other) < spare


def test_a_rung_that_compiles_when_it_is_loaded_needs_more_time_than_another() -> None:
    planned, clock = schedule(60)
    plain = trial(Plan.of([InferenceMode()]), 1.5)
    clock.advance(60 - 22)

    assert planned.time_for_the_rung(plain)
    assert not planned.time_for_the_rung(plain.replace(load_seconds=4.0))


def test_an_original_that_settles_at_once_leaves_more_of_its_opening_to_what_is_not_warmed_up() -> None:
    planned, _ = schedule()
    before = planned.publish_seconds(None)

    planned.warmed_seconds = 0.2

    assert planned.publish_seconds(None) == before + 2 * (WARM_SECONDS - 0.2)


def test_a_leader_that_may_fail_keeps_time_for_another_after_it() -> None:
    planned, clock = schedule(120)
    risky, safe = trial(Plan.of([Halve(), Engine()]), 4.0), trial(Plan.of([Engine()]), 2.0)

    assert planned.ending_seconds(risky) > planned.confirm_seconds(risky)
    assert planned.ending_seconds(safe) == planned.confirm_seconds(safe)

    clock.advance(120 - planned.judge_seconds(risky) - planned.confirm_seconds(safe) - 1)
    assert planned.time_to_judge_first(risky, safe)
    clock.advance(2)
    assert not planned.time_to_judge_first(risky, safe)


def test_time_is_kept_for_the_safe_plan_that_is_confirmed_where_a_faster_one_is_refused() -> None:
    planned, _ = schedule(120)
    risky, safe = trial(Plan.of([Halve(), Engine()]), 4.0), trial(Plan.of([Engine()]), 2.0)
    slow_to_load = safe.replace(load_seconds=4.0)

    assert planned.ending_seconds(risky, [risky], slow_to_load) > planned.ending_seconds(risky, [risky], safe)
    assert planned.ending_seconds(risky, [risky], safe) == planned.ending_seconds(risky, [risky])


def test_time_is_kept_to_judge_each_plan_that_may_be_refused_before_one_that_may_not() -> None:
    planned, clock = schedule(120)
    plans = [Plan.of([Prune(), Halve(), Engine()]), Plan.of([Halve(), Engine()]), Plan.of([Halve(), Turbine()])]
    risky = [trial(plan, speedup) for plan, speedup in zip(plans, (8.0, 6.0, 4.0), strict=True)]
    fit = [*risky, trial(Plan.of([Engine()]), 3.0), trial(Plan.of([Prune(), Turbine()]), 2.0)]

    gambles = gambles_of(fit)

    assert gambles == risky
    assert planned.ending_seconds(risky[0], gambles) > planned.ending_seconds(risky[0])
    clock.advance(120 - planned.ending_seconds(risky[0]) - planned.expected_seconds(plans[0]) - 1)
    assert planned.time_for_a_trial(plans[0], risky[0])
    assert not planned.time_for_a_trial(plans[0], risky[0], gambles)


def test_a_disturbed_machine_keeps_time_for_restarts_of_what_they_decide_once_some_plans_were_tried() -> None:
    planned, _ = schedule(120)
    near, far = (trial(Plan.of([InferenceMode()]), speedup) for speedup in (1.5, 9.0))
    few = planned.confirm_seconds(near)
    planned.is_disturbed = True

    for _ in range(TRIED_BEFORE_MORE):
        assert planned.confirm_seconds(near) == few  # a faster plan is worth more than a narrow interval of this one
        planned.tried(Plan.of([Engine()]), 5.0)

    assert planned.confirm_seconds(near) > few
    assert planned.confirm_seconds(far) == few


def test_what_only_answers_is_not_warmed_up() -> None:
    planned, _ = schedule(120)
    planned.opening_seconds = WARM_SECONDS + 3.0

    assert planned.publish_seconds(trial(Plan.of([Engine()]), 2.0)) == 2 * 3.0


def test_a_fork_that_only_answers_takes_its_loading_and_later_pairs_load_beside_the_original() -> None:
    planned, _ = schedule(120)
    planned.opening_seconds, planned.race_opening_seconds, planned.warmed_seconds = 7.0, 5.0, 2.0
    planned.loading_seconds = 3.0
    loaded = trial(Plan.of([Engine()]), 2.0).replace(load_seconds=4.0)

    assert planned.publish_seconds(loaded) == 2 * (FORKED_SECONDS + 4.0) + 2.0  # one of the two is an interpreter

    beside = planned.confirm_seconds(loaded)
    planned.loading_seconds = 0.0  # nothing is done beside it
    assert planned.confirm_seconds(loaded) - beside == pytest.approx(SPARE * 2 * 3.0)


def test_no_trial_may_take_all_the_time() -> None:
    planned, _ = schedule(120)

    assert planned.allowed(None) == 30.0
    assert schedule(40)[0].allowed(None) <= 20.0


def test_a_first_trial_is_not_cut_short_for_a_confirmation_of_nothing() -> None:
    planned, clock = schedule(60)
    planned.opening_seconds = 20.0
    assert planned.allowed(None) == LEAST_TRIAL_SECONDS
    clock.advance(50)
    assert planned.allowed(None) == 10.0


def test_trials_that_showed_nothing_leave_time_to_keep_the_original() -> None:
    planned, clock = schedule(60)
    planned.tried(Plan.of([Engine()]), 20.0, was_raced=False)
    clock.advance(42)

    assert planned.allowed(None) == pytest.approx(18.0 - planned.keeping_seconds())
    assert planned.keeping_seconds() < planned.confirm_seconds(None)


def test_a_longer_search_keeps_time_to_measure_its_winner_technique_by_technique_and_a_short_one_does_not() -> None:
    assert schedule(120)[0].kept_seconds() == 0.0
    assert schedule(300)[0].attribution_seconds() == 30.0
    assert schedule(36_000)[0].attribution_seconds() == 120.0


def test_a_longer_search_keeps_time_to_list_fusions_and_measure_ceilings_and_a_short_one_does_not() -> None:
    planned, _ = schedule(300)

    assert planned.kept_seconds() == planned.rung_seconds() + 30.0 + planned.explain_seconds()
    assert planned.explain_seconds() == 3 * planned.opening_seconds + 6.0 + 2 * 3.0
    assert schedule(120)[0].explain_seconds() == 0.0


def test_slow_calls_keep_more_time_for_profiles_but_not_much_of_all() -> None:
    planned, _ = schedule(300)
    before = planned.explain_seconds()

    planned.call_seconds = 0.5
    assert planned.explain_seconds() == before + 2 * 6 * 0.5
    planned.call_seconds = 20.0
    assert planned.explain_seconds() == before + 15.0


def test_profiling_takes_as_long_as_loading_and_a_second_of_calls_or_a_few_slow_ones() -> None:
    planned, _ = schedule(300)

    assert planned.profile_seconds(0.0) == 3.0
    assert planned.profile_seconds(2.0, loading=30.0) == 3.0 + 6 * 2.0 + 30.0


def test_time_for_an_empty_call_is_kept_for_a_tiny_model_only() -> None:
    planned, _ = schedule(300)
    before = planned.explain_seconds()

    planned.is_tiny = True

    assert planned.explain_seconds() == before + planned.empty_call_seconds(None)
    assert planned.empty_call_seconds(None) > 4.0


def test_a_configuration_is_measured_only_if_the_artifact_is_still_in_time() -> None:
    planned, clock = schedule(300)
    winner, plan = trial(Plan.of([Engine()]), 2.0), Plan.of([Halve()])
    after = planned.publish_seconds(winner) + planned.explain_seconds()
    needed = planned.configuration_seconds(plan, winner, True) + after

    clock.advance(300 - needed - 1)
    assert planned.time_for_a_configuration(plan, winner, True)
    assert not planned.time_for_a_configuration(plan, winner, False)
    clock.advance(2)
    assert not planned.time_for_a_configuration(plan, winner, True)


def test_a_slow_model_needs_more_time_for_a_configuration() -> None:
    def confirmed(seconds: float) -> Trial:
        times = ArmTimes(seconds, None, None, 100, 0.1, 0.1, True, 0)
        same = Comparison(Interval(1, 1, 1), SpeedVerdict.SAME, times, times, 20, 3, 0.01, ((1.0,),))
        return trial(Plan.of([Engine()]), 2.0).replace(confirmed=same)

    planned, _ = schedule(300)
    plan = Plan.of([Halve()])

    fast, slow = (planned.configuration_seconds(plan, confirmed(seconds), True) for seconds in (0.01, 2.0))
    assert slow - fast > 6 * 4 * 2.0 - 5.0


def test_blocks_of_a_confirmation_take_a_smaller_share_of_a_short_time() -> None:
    shares = {seconds: schedule(seconds)[0].rule().max_seconds for seconds in (30.0, 120.0, 240.0, 600.0)}

    assert shares == pytest.approx({30.0: 3.0, 120.0: 6.0, 240.0: 20.0, 600.0: 30.0})
