"""Which configurations say what each technique of a plan is worth; findings are made up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from search.toys import FACTS, Engine, Halve, InferenceMode, Packed, Threads
from vivace.core.attribution import Finding
from vivace.core.facts import Fact
from vivace.core.measurement import Interval
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.search.account.waterfall import attribution_of, configurations

HALVE, MODE, ENGINE = Halve(), InferenceMode(), Engine()
WINNER = Plan((HALVE, MODE, ENGINE))
SPEEDS = {
    WINNER: 6.0,
    Plan((MODE, ENGINE)): 3.0,
    Plan((HALVE, ENGINE)): 5.0,
    Plan((HALVE, MODE)): 1.5,
    Plan((HALVE,)): 1.2,
}


@dataclass(frozen=True, kw_only=True)
class Unpack(Engine):
    """Runs what Packed writes."""

    gives = frozenset({Fact.RUNNABLE})


@dataclass(frozen=True, kw_only=True)
class Fusing(Engine):
    """A compiler that can be told not to fuse."""

    fuse: bool = True

    def unfused(self) -> Technique | None:
        return Fusing(fuse=False) if self.fuse else None


class Asked:
    """Answers with a tenth to either side, and remembers what it was asked."""

    def __init__(self, speeds: dict[Plan, float]) -> None:
        self.speeds = speeds
        self.plans: list[Plan] = []

    def __call__(self, plan: Plan) -> Finding:
        self.plans.append(plan)
        value = self.speeds[plan]
        return Finding(Interval(value, value * 0.9, value * 1.1), 1)


def test_steps_build_the_plan_up_in_its_order() -> None:
    found = attribution_of(WINNER, FACTS, Asked(SPEEDS))

    assert [(step.technique, step.speedup.value) for step in found.steps if step.speedup] == [
        (HALVE, 1.2),
        (MODE, 1.5),
        (ENGINE, 6.0),
    ]


def test_the_worth_of_a_technique_is_the_plan_over_the_plan_without_it_with_the_ends_divided_crosswise() -> None:
    engine = attribution_of(WINNER, FACTS, Asked(SPEEDS)).left_out[2]

    assert engine.plan == Plan((HALVE, MODE))
    assert engine.worth is not None
    assert (engine.worth.value, engine.worth.low, engine.worth.high) == pytest.approx((4.0, 5.4 / 1.65, 6.6 / 1.35))


def test_each_configuration_is_measured_once_and_those_without_a_technique_come_first() -> None:
    asked = Asked(SPEEDS)
    attribution_of(WINNER, FACTS, asked)

    assert asked.plans == [WINNER, Plan((MODE, ENGINE)), Plan((HALVE, ENGINE)), Plan((HALVE, MODE)), Plan((HALVE,))]
    assert set(asked.plans) - {WINNER} == configurations(WINNER)


def test_a_configuration_that_cannot_run_is_not_measured_and_says_why() -> None:
    packed, unpack = Packed(), Unpack()
    plan = Plan((packed, unpack))
    asked = Asked({plan: 3.0, Plan((unpack,)): 1.5})

    found = attribution_of(plan, FACTS, asked)

    assert found.steps[0].speedup is None
    assert found.steps[0].reason == "packed needs a later technique that can run its program"
    assert found.left_out[1].worth is None
    assert Plan((packed,)) not in asked.plans


def test_without_its_only_technique_a_plan_is_the_original_which_is_not_measured() -> None:
    plan = Plan((Threads(count=2),))
    asked = Asked({plan: 1.8})

    found = attribution_of(plan, FACTS, asked)

    assert asked.plans == [plan]
    assert found.left_out[0].worth == found.steps[0].speedup
    assert found.left_out[0].reason == "it is the original"


def test_the_winner_with_its_compiler_told_not_to_fuse_is_asked_for_last() -> None:
    fusing, plain = Fusing(), Fusing(fuse=False)
    plan = Plan((MODE, fusing))
    asked = Asked({plan: 4.0, Plan((fusing,)): 3.5, Plan((MODE,)): 1.1, Plan((MODE, plain)): 2.0})

    found = attribution_of(plan, FACTS, asked)

    assert asked.plans[-1] == Plan((MODE, plain)) and Plan((MODE, plain)) in configurations(plan)
    assert found.unfused is not None and found.unfused.worth is not None
    assert (found.unfused.technique, found.unfused.worth.value) == (fusing, 2.0)
    assert attribution_of(WINNER, FACTS, Asked(SPEEDS)).unfused is None


def test_a_configuration_that_failed_has_its_reason_wherever_it_appears() -> None:
    def find(plan: Plan) -> Finding:
        return Finding(Interval(2, 2, 2), 3) if plan == WINNER else Finding(None, reason="crashed: SIGSEGV")

    found = attribution_of(WINNER, FACTS, find)

    assert [step.reason for step in found.steps] == ["crashed: SIGSEGV", "crashed: SIGSEGV", ""]
    assert {part.worth for part in found.left_out} == {None}
