"""The rehearsal of a search asks for what the search would, as long as its made-up time lasts."""

from __future__ import annotations

import dataclasses

import pytest

from search.toys import KNOWN, MACHINE, WORK, Engine, Halve, Prune, Repair, Threads, Turbine, trial
from vivace.core.cost import Cost
from vivace.core.forecast import Expected
from vivace.core.plan import Plan
from vivace.core.quality import Budget, Gate
from vivace.core.workload import Objective
from vivace.devices.roofline import predicted_seconds
from vivace.measure.clock import FakeClock
from vivace.search.account.forecast import closing, mended, rehearse, stored_programs
from vivace.search.options import Options
from vivace.search.order.memory import Memory
from vivace.search.rank import Ranking
from vivace.search.schedule import Schedule
from vivace.search.space import space_of
from vivace.search.strategy import default_strategy

SPACE = space_of(WORK, MACHINE, {name: kind for name, kind in KNOWN.items() if name != "packed"})
OPTIONS = Options(Budget(), Gate.STRICT, Objective.LATENCY, 300.0, None, KNOWN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slim(Halve):
    """A precision that takes a quarter of the weights' bytes."""

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(weight_bytes=cost.weight_bytes / 4)


def fresh() -> Memory:
    ranking = Ranking(WORK.cost, lambda cost: predicted_seconds(cost, MACHINE))
    return Memory(ranking, ranking.predicted_seconds(Plan()), OPTIONS.merit)


def rehearsed(seconds: float) -> tuple[list[Expected], Memory, Schedule, FakeClock]:
    clock, memory = FakeClock(), fresh()
    schedule = Schedule(seconds, clock.now(), 3, clock)
    return list(rehearse(SPACE, memory, schedule, clock)), memory, schedule, clock


def test_plans_come_in_the_order_of_a_search_whose_trials_go_as_predicted() -> None:
    found, *_ = rehearsed(300.0)

    memory = fresh()
    strategy = default_strategy(SPACE, memory)
    asked = [next(strategy)[0]]
    while len(asked) < len(found):
        gain = memory.baseline_seconds / memory.ranking.predicted_seconds(asked[-1])
        asked.append(strategy.send(trial(asked[-1], gain))[0])
    assert [expected.plan for expected in found] == asked
    assert len(asked) > 5


def test_what_promises_less_work_is_predicted_to_be_faster() -> None:
    gains = {expected.plan: expected.speedup for expected in rehearsed(3000.0)[0]}

    assert gains[Plan.of([Engine(), Halve()])] > gains[Plan.of([Engine()])] > gains[Plan.of([Turbine()])] > 1


def test_less_time_tries_the_first_of_what_more_time_tries_and_keeps_some_to_confirm() -> None:
    short, _, schedule, clock = rehearsed(80.0)
    longer, *_ = rehearsed(300.0)

    assert 0 < len(short) < len(longer)
    assert [expected.plan for expected in short] == [expected.plan for expected in longer][: len(short)]
    assert sum(expected.seconds for expected in short) == pytest.approx(clock.now())
    assert schedule.left() > 0


def test_where_two_plans_may_not_fit_the_more_promising_one_comes_first() -> None:
    (first, *_), memory, *_ = rehearsed(50.0)
    (usual, *_), *_ = rehearsed(300.0)

    assert (Halve() in first.plan.techniques, Halve() in usual.plan.techniques) == (True, False)
    assert memory.ranking.predicted_seconds(first.plan) < memory.ranking.predicted_seconds(usual.plan)


def test_confirming_and_attributing_take_time_too() -> None:
    _, memory, schedule, _ = rehearsed(300.0)
    one = schedule.confirm_seconds(memory.leader)

    assert closing(memory, OPTIONS, schedule) > 3 * one
    assert closing(fresh(), OPTIONS, schedule) == schedule.confirm_seconds(None)


def test_what_would_be_tried_where_quality_is_refused_is_listed_with_its_training() -> None:
    plans, memory, schedule, _ = rehearsed(3000.0)
    pruned = Plan.of([Prune(), Engine()])

    space = space_of(WORK, MACHINE, KNOWN | {"prune": Prune, "repair": Repair})

    found = list(mended(space, [Plan.of([Engine()]), pruned], memory, schedule))

    assert [expected.plan for expected in found] == [Plan.of([Prune(), Repair(), Engine()])]
    assert found[0].speedup == memory.baseline_seconds / memory.ranking.predicted_seconds(pruned)
    assert found[0].seconds > 0
    assert not any(technique.mends for expected in plans for technique in expected.plan)


def test_each_plan_is_predicted_to_read_the_weights_that_its_techniques_leave() -> None:
    clock, memory, plan = FakeClock(), fresh(), Plan.of([Slim(), Engine()])
    memory.ranking.cost = WORK.cost.replace(weight_bytes=4e6)

    (found,) = rehearse(SPACE, memory, Schedule(300.0, clock.now(), 3, clock), clock, plan)

    assert (found.plan, found.weight_bytes) == (plan, 1_000_000)


def test_one_plan_that_was_asked_for_is_the_only_one() -> None:
    clock, plan = FakeClock(), Plan.of([Threads(count=1)])

    found = list(rehearse(SPACE, fresh(), Schedule(300.0, clock.now(), 3, clock), clock, plan))

    assert [expected.plan for expected in found] == [plan]


def test_a_beginning_that_two_plans_share_is_stored_once() -> None:
    plans = [Plan((Halve(), Engine())), Plan((Halve(), Turbine())), Plan((Threads(count=1), Engine()))]

    assert stored_programs(plans) == 3 + 1
