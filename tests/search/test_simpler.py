"""A winner's techniques of known cost: what brings nothing is left out, what is held stays, and each is asked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from search.toys import FACTS, Engine, Halve, InferenceMode, Threads, Turbine, trial
from vivace.core.errors import WorkerFailure
from vivace.core.measurement import ArmTimes, Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Trial
from vivace.core.technique import Technique
from vivace.search.rank import numerics_of
from vivace.search.verdict.simpler import CLEAR_GAIN, Simplification

TIMES = ArmTimes(0.010, None, None, 100, 0.1, 0.1, True, 0)
ALL = Plan.of([Engine(), InferenceMode(), Threads(count=2)])
ENGINE = Plan((Engine(),))


def compared(value: float, low: float, high: float) -> Comparison:
    return Comparison(Interval(value, low, high), SpeedVerdict.FASTER, TIMES, TIMES, 36, 3, 0.01, ((value,),))


def confirmed(plan: Plan, speedup: float, verdict: QualityVerdict = QualityVerdict.HELD) -> Trial:
    held = Quality(verdict, "Tango", 300, 0.01)
    return trial(plan, speedup).replace(confirmed=compared(speedup, speedup * 0.95, speedup * 1.05), quality=held)


@dataclasses.dataclass
class FalseRoom:
    """`worth` is what each technique gains in truth; the interval of a pair is 2% about that."""

    worth: Mapping[str, float]
    has_time: bool = True
    refused: tuple[Plan, ...] = ()
    failure: WorkerFailure | None = None
    tried: dict[Plan, Trial] = dataclasses.field(default_factory=dict)
    pairs: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    asked: list[Plan] = dataclasses.field(default_factory=list)

    def try_rest(self, rest: Plan, winner: Trial) -> Trial | None:
        if not self.has_time:
            return None
        self.asked.append(rest)
        self.tried[rest] = trial(rest, winner.rank_speedup)
        return self.tried[rest]

    def pair(self, rest: Trial, winner: Trial) -> Comparison | None:
        if self.failure is not None:
            raise self.failure
        if not self.has_time:
            return None
        self.pairs.append((str(rest.plan), str(winner.plan)))
        gained: Technique = next(t for t in winner.plan if t not in rest.plan.techniques)
        value = self.worth[gained.name()]
        return compared(value, value - 0.02, value + 0.02)

    def confirm(self, rest: Trial) -> Trial:
        if rest.plan in self.refused:
            failed = Quality(QualityVerdict.NOT_HELD, "Tango", 300, 0.01)
            return rest.replace(outcome=Outcome.QUALITY_FAILED, reason="the drop is 0.2", quality=failed)
        return rest if rest.confirmed else confirmed(rest.plan, rest.rank_speedup)

    def beats(self, rest: Trial) -> bool:
        return rest.confirmed is not None and rest.confirmed.verdict is SpeedVerdict.FASTER


def simplified(
    room: FalseRoom,
    winner: Trial,
    *others: Trial,
    floor: float = 0.01,
    refused: frozenset[tuple[str, ...]] = frozenset(),
) -> tuple[Plan, list[str]]:
    room.tried.update({one.plan: one for one in (winner, *others)})
    made = Simplification(room, FACTS, room.tried, refused, floor)
    return made.of(winner).plan, made.told


def test_what_brings_nothing_is_left_out_one_after_the_other_and_what_is_held_stays() -> None:
    room = FalseRoom({"threads": 1.01, "inference-mode": 1.0, "engine": 3.0})
    with_threads, with_mode = Plan.of([Engine(), Threads(count=2)]), Plan.of([Engine(), InferenceMode()])

    plan, told = simplified(
        room, confirmed(ALL, 3.1), trial(with_threads, 3.05), trial(with_mode, 3.0), trial(ENGINE, 3.0)
    )

    assert plan == ENGINE
    assert room.pairs == [(str(with_threads), str(ALL)), (str(ENGINE), str(with_threads))]
    assert told[0].startswith(f"inference-mode is left out beside {with_threads}")
    assert told[1] == (
        "threads(count=2) is left out beside engine: the plan with it is 1.01 [0.99, 1.03] times as fast (MEASURED, 3 "
        "pairs of processes), a gain that is not held"
    )


def test_a_technique_whose_gain_is_held_stays_and_is_asked_once() -> None:
    room = FalseRoom({"threads": 1.05, "inference-mode": 1.05})
    rest = Plan.of([Engine(), InferenceMode()])

    plan, told = simplified(
        room, confirmed(ALL, 3.1), trial(rest, 3.0), trial(Plan.of([Engine(), Threads(count=2)]), 3)
    )

    assert plan == ALL
    assert len(room.pairs) == len(set(room.pairs)) == 2
    assert all(" stays beside " in one for one in told)


def test_what_the_race_saw_to_gain_much_is_not_doubted_unless_the_machine_is_as_unsure() -> None:
    winner, rest = confirmed(Plan.of([Engine(), Halve()]), 3.0), trial(ENGINE, 3.0 / CLEAR_GAIN / 1.05)
    calm, disturbed = FalseRoom({"halve": 1.0}), FalseRoom({"halve": 1.0})

    assert simplified(calm, winner, rest) == (winner.plan, [])
    assert simplified(disturbed, winner, rest, floor=0.3)[0] == ENGINE


def test_what_every_plan_was_given_is_tried_without_it_and_what_a_plan_began_with_is_not() -> None:
    room = FalseRoom({"threads": 0.99, "turbine": 1.0})

    plan, _ = simplified(room, confirmed(Plan.of([Turbine(), Threads(count=2)]), 2.0))

    assert plan == Plan((Turbine(),))
    assert room.asked == [Plan((Turbine(),))]


def test_a_plan_whose_answers_were_refused_is_no_simpler_form_of_the_winner() -> None:
    room, rest = FalseRoom({"inference-mode": 1.0}), Plan.of([Halve(), Engine()])
    winner = confirmed(Plan.of([Halve(), InferenceMode(), Engine()]), 3.0)

    assert simplified(room, winner, refused=frozenset({numerics_of(rest)}))[0] == winner.plan
    assert room.asked == []


def test_a_gain_that_is_seen_and_not_held_stays_and_is_told_as_undecided() -> None:
    class Unsure(FalseRoom):
        def pair(self, rest: Trial, winner: Trial) -> Comparison | None:
            return compared(1.06, 0.97, 1.16)

    rest = Plan.of([Engine(), InferenceMode()])

    plan, told = simplified(Unsure({}), confirmed(ALL, 3.1), confirmed(rest, 3.0))

    assert plan == ALL
    assert told[0].startswith(f"threads(count=2) stays beside {rest}, undecided: the plan with it is 1.06 [0.97, 1.16]")


def test_without_time_two_confirmations_decide_and_the_longer_plan_stays_only_where_they_are_apart() -> None:
    rest = Plan.of([Engine(), InferenceMode()])

    def left(speedup: float) -> tuple[Plan, list[str]]:
        return simplified(FalseRoom({}, has_time=False), confirmed(ALL, speedup), confirmed(rest, 3.0))

    assert left(3.03)[0] == rest
    assert "each against the original" in left(3.03)[1][0]
    assert "undecided" in left(3.2)[1][0]
    assert left(3.4)[0] == ALL


def test_without_time_and_without_a_confirmation_the_winner_stays_and_that_is_told() -> None:
    rest = Plan.of([Engine(), InferenceMode()])

    plan, told = simplified(FalseRoom({}, has_time=False), confirmed(ALL, 3.1), trial(rest, 3.0))

    assert plan == ALL
    assert (
        told[0]
        == f"whether threads(count=2) brings anything beside {rest} is not known: there was no time left to pair them"
    )


def test_a_simpler_plan_that_is_refused_is_not_delivered_and_no_other_is_judged_after_it() -> None:
    halved = Plan.of([Halve(), Engine()])
    winner, rest = (
        Plan.of([Halve(), InferenceMode(), Engine(), Threads(count=2)]),
        Plan.of([Halve(), InferenceMode(), Engine()]),
    )
    other = Plan.of([Halve(), Engine(), Threads(count=2)])
    room = FalseRoom({"threads": 1.0, "inference-mode": 1.0}, refused=(rest, other, halved))

    plan, told = simplified(room, confirmed(winner, 3.0), trial(rest, 3.0), trial(other, 2.9))

    assert plan == winner
    assert len(room.pairs) == 1
    assert "without it, the drop is 0.2" in told[0]


@pytest.mark.parametrize("why", ["SIGSEGV in load", "answers from memory"])
def test_what_fails_while_it_is_paired_is_told_and_costs_the_winner_nothing(why: str) -> None:
    room = FalseRoom({}, failure=WorkerFailure(Outcome.CRASHED, why))
    rest = Plan.of([Engine(), InferenceMode()])

    plan, told = simplified(room, confirmed(ALL, 3.1), trial(rest, 3.0))

    assert plan == ALL
    assert why in told[0]
