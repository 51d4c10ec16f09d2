"""The strategy tries the ladder, then each compiler, then what looks best; it is a generator of plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from search.toys import KNOWN, MACHINE, WORK, Dial, Engine, Halve, InferenceMode, Prune, Repair, Threads, Turbine, trial
from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Trial
from vivace.core.technique import Effect, Technique
from vivace.core.work import Work
from vivace.devices.roofline import predicted_seconds
from vivace.search.order.memory import Memory, Strategy
from vivace.search.rank import Ranking
from vivace.search.space import Space, space_of
from vivace.search.strategy import (
    MUCH_MORE,
    default_strategy,
    exhaustive_strategy,
    is_rung,
    missed,
)


def space(**bounds: list[str]) -> Space:
    """The toy space without the technique that needs another to run."""
    return space_of(WORK, MACHINE, {name: kind for name, kind in KNOWN.items() if name != "packed"}, **bounds)


def memory() -> Memory:
    """Nothing known but the original's second."""
    return Memory(
        Ranking(WORK.cost, lambda cost: predicted_seconds(cost, MACHINE)),
        1.0,
        lambda t: t.speedup.value,  # type: ignore[union-attr]
    )


def drive(strategy: Strategy, answer: Callable[[Plan], Trial], most: int = 100) -> list[Plan]:
    """Run a strategy against made-up trials; the plans that it asked for."""
    asked = []
    request = next(strategy, None)
    while request is not None and len(asked) < most:
        asked.append(request[0])
        try:
            request = strategy.send(answer(request[0]))
        except StopIteration:
            break
    return asked


def test_every_compiler_comes_first_with_and_without_changed_answers_then_inference_mode_then_the_ladder() -> None:
    asked = drive(default_strategy(space(), memory()), lambda plan: trial(plan, 1.1))

    kinds = asked[: asked.index(Plan.of([InferenceMode()]))]
    assert {(Engine() in p.techniques, Turbine() in p.techniques, Halve() in p.techniques) for p in kinds} == {
        (True, False, False),
        (True, False, True),
        (False, True, False),
        (False, True, True),
    }
    assert len(kinds) == 4
    rungs = [Plan.of([InferenceMode(), Threads(count=n)]) for n in (1, 2)]
    assert set(rungs) < set(asked[len(kinds) + 1 :])


def test_what_changes_answers_and_what_only_rounds_takes_turns() -> None:
    asked = drive(default_strategy(space(), memory()), lambda plan: trial(plan, 1.1), most=4)

    changed = [plan.effect is Effect.CHANGED for plan in asked]
    assert changed == [False, True, False, True]


def test_plans_that_promise_more_and_had_no_time_are_told() -> None:
    seen = memory()
    seen.has_time_for = lambda plan: not seen.tried  # for one trial
    (first,) = drive(default_strategy(space(), seen), lambda plan: trial(plan, 1.1))

    untold = missed(space(), seen)

    assert untold
    assert first not in untold
    assert any(Halve() in plan.techniques for plan in untold)
    whole = memory()
    drive(default_strategy(space(), whole), lambda plan: trial(plan, 1.1))
    assert missed(space(), whole) == []


def short_of_time() -> Memory:
    """Time for one plan, and perhaps for another."""
    seen = memory()
    seen.has_time_for_first = lambda plans: len(plans) <= 1
    return seen


def test_where_two_plans_may_not_fit_the_one_that_promises_much_more_comes_first() -> None:
    first, second, *_ = drive(default_strategy(space(), short_of_time()), lambda plan: trial(plan, 1.1))

    assert (Halve() in first.techniques, second.effect) == (True, Effect.ROUNDED)
    usual, *_ = drive(default_strategy(space(), memory()), lambda plan: trial(plan, 1.1))
    promised = memory().ranking.predicted_seconds
    assert promised(first) * MUCH_MORE < promised(usual)


@pytest.mark.parametrize("outcome", [Outcome.QUALITY_FAILED, Outcome.TIMEOUT, Outcome.UNSUPPORTED])
def test_where_it_is_refused_what_only_rounds_is_next(outcome: Outcome) -> None:
    class Quarter(Halve):
        """Another precision, in place of the first."""

        def rewrite(self, cost: Cost) -> Cost:
            return cost.replace(flops=cost.flops / 4, precision="int8")

    def answer(plan: Plan) -> Trial:
        return trial(plan, None, outcome) if plan.effect is Effect.CHANGED else trial(plan, 1.1)

    known = {name: kind for name, kind in KNOWN.items() if name != "packed"} | {"quarter": Quarter}
    first, second, *_ = drive(default_strategy(space_of(WORK, MACHINE, known), short_of_time()), answer)

    assert (first.effect, second.effect) == (Effect.CHANGED, Effect.ROUNDED)


def test_what_promises_little_more_does_not_come_before_what_only_rounds() -> None:
    class Hardly(Halve):
        def rewrite(self, cost: Cost) -> Cost:
            return cost.replace(flops=cost.flops / 1.05, weight_bytes=cost.weight_bytes / 1.05)

    known = {name: kind for name, kind in KNOWN.items() if name != "packed"} | {"halve": Hardly}
    first, *_ = drive(default_strategy(space_of(WORK, MACHINE, known), short_of_time()), lambda plan: trial(plan, 1.1))

    assert first.effect is not Effect.CHANGED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coarse(Halve):
    """A precision that may be beside another one, and is coarser."""

    needs = frozenset({Fact.UNQUANTIZED})
    breaks = frozenset({Fact.UNQUANTIZED})

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(flops=cost.flops / 4, precision="int8")


@pytest.mark.parametrize("outcome", [Outcome.QUALITY_FAILED, Outcome.QUALITY_UNKNOWN, Outcome.TIMEOUT])
def test_a_refused_plan_of_two_precisions_is_followed_at_once_by_the_finer_one(outcome: Outcome) -> None:
    def answer(plan: Plan) -> Trial:
        return trial(plan, None, outcome) if Coarse() in plan.techniques else trial(plan, 1.1)

    known = {**{name: kind for name, kind in KNOWN.items() if name != "packed"}, "coarse": Coarse}
    asked = drive(default_strategy(space_of(WORK, MACHINE, known), memory()), answer)

    refused = next(number for number, plan in enumerate(asked) if {Coarse(), Halve()} <= set(plan.techniques))
    assert asked[refused + 1] == Plan(tuple(t for t in asked[refused] if t != Coarse()))


def test_another_kind_of_a_compiler_that_was_tried_comes_early_only_if_it_may_beat_the_leader() -> None:
    def answer(plan: Plan) -> Trial:
        return trial(plan, 100.0 if Engine() in plan.techniques else 1.0)

    asked = drive(default_strategy(space(), memory()), answer)
    early = asked[: asked.index(Plan.of([InferenceMode()]))]

    assert [Turbine() in plan.techniques for plan in early].count(True) == 1
    assert any({Turbine(), Halve()} <= set(plan.techniques) for plan in asked)


def test_what_is_slow_to_build_waits_for_one_of_each_other_kind() -> None:
    class SlowEngine(Engine):
        build_seconds = 100.0

    known = {**KNOWN, "engine": SlowEngine}
    slow = space_of(WORK, MACHINE, {name: kind for name, kind in known.items() if name != "packed"})

    asked = drive(default_strategy(slow, memory()), lambda plan: trial(plan, 1.1), most=4)

    assert [SlowEngine() in plan.techniques for plan in asked] == [False, False, True, True]


def test_a_plan_that_there_is_no_time_for_is_not_asked_for() -> None:
    known = memory()
    known.has_time_for = lambda plan: Engine() not in plan.techniques

    asked = drive(default_strategy(space(), known), lambda plan: trial(plan, 1.1))

    assert asked
    assert not any(Engine() in plan.techniques for plan in asked)


def test_what_promises_to_beat_the_leader_comes_before_the_ladder() -> None:
    def answer(plan: Plan) -> Trial:
        """With more than one thread everything is as fast as its roofline promises."""
        return trial(plan, 4.0 if Turbine() in plan.techniques else 1.1)

    asked = drive(default_strategy(space(), memory()), answer)

    more_threads = asked.index(next(p for p in asked if {Turbine(), Threads(count=2)} <= set(p.techniques)))
    assert more_threads < asked.index(Plan.of([InferenceMode(), Threads(count=1)]))


def test_no_plan_is_tried_twice() -> None:
    asked = drive(default_strategy(space(), memory()), lambda plan: trial(plan, 1.0 + len(plan) / 10))

    assert len(asked) == len(set(asked))


def test_later_seeds_start_with_the_settings_of_the_best_plan_but_not_with_its_precision() -> None:
    best = Plan.of([Halve(), Threads(count=2), Turbine()])

    def answer(plan: Plan) -> Trial:
        near = {Halve(), Turbine()} <= set(plan.techniques)
        return trial(plan, 30.0 if plan == best else 10.0 if near else 1.5)

    asked = drive(default_strategy(space(), memory()), answer)

    later = asked[asked.index(best) + 1 :]
    assert any(Engine() in p.techniques and Threads(count=2) in p.techniques for p in later)
    assert any(Engine() in p.techniques and Halve() not in p.techniques for p in later)


def test_the_neighbours_of_the_leader_are_tried() -> None:
    def answer(plan: Plan) -> Trial:
        return trial(plan, (9.0 if Turbine() in plan.techniques else 1.2) + (Halve() in plan.techniques))

    asked = drive(default_strategy(space(), memory()), answer)

    assert any(Turbine() in p.techniques and Halve() in p.techniques and len(p) >= 3 for p in asked)


def test_a_wrong_plan_never_leads() -> None:
    known = memory()

    drive(
        default_strategy(space(), known),
        lambda plan: trial(plan, 50.0, Outcome.WRONG_OUTPUT) if Engine() in plan.techniques else trial(plan, 1.5),
    )

    assert known.leader is not None
    assert Engine() not in known.leader.plan.techniques


def test_a_technique_that_does_nothing_alone_is_not_combined() -> None:
    known = memory()
    only = space(only=["halve", "inference-mode"])

    asked = drive(
        default_strategy(only, known),
        lambda plan: trial(plan, None, Outcome.UNSUPPORTED) if plan == Plan.of([Halve()]) else trial(plan, 1.1),
    )

    assert sum(Halve() in plan.techniques for plan in asked) <= 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shave(Halve):
    """A second precision, which may stand beside the first and then adds little."""

    breaks = frozenset({Fact.FLOAT32})
    needs = frozenset()

    def rewrite(self, cost: Cost) -> Cost:
        is_halved = cost.flops < WORK.cost.flops
        return cost.replace(flops=cost.flops / (1.1 if is_halved else 1.8))


def with_two_precisions() -> Space:
    known = {name: kind for name, kind in KNOWN.items() if name != "packed"} | {"shave": Shave}
    return space_of(WORK, MACHINE, known)


def test_of_a_leader_with_two_precisions_each_is_tried_alone() -> None:
    def answer(plan: Plan) -> Trial:
        if Shave() in plan.techniques:
            return trial(plan, 3.0 if Halve() in plan.techniques else 2.9)
        return trial(plan, 2.5 if Halve() in plan.techniques else 1.5)

    known = memory()
    for plan in (Plan.of([Engine()]), Plan.of([Halve(), Engine()]), Plan.of([Halve(), Shave(), Engine()])):
        known.record(plan, answer(plan))

    asked = drive(default_strategy(with_two_precisions(), known), answer)

    alone = asked.index(Plan.of([Shave(), Engine()]))
    assert alone < asked.index(Plan.of([InferenceMode(), Threads(count=1)]))


def test_a_technique_that_did_not_apply_beside_what_works_comes_last_in_other_settings() -> None:
    def answer(plan: Plan) -> Trial:
        if any(isinstance(t, Threads) for t in plan) and Engine() in plan.techniques:
            return trial(plan, None, Outcome.UNSUPPORTED)
        return trial(plan, 2.0 if Engine() in plan.techniques else 1.1)

    known = memory()
    known.record(Plan.of([Engine()]), answer(Plan.of([Engine()])))
    refused = Plan.of([Threads(count=1), Engine()])
    known.record(refused, answer(refused))

    others = [Plan.of([Threads(count=2), Engine()]), Plan.of([InferenceMode(), Engine()])]

    assert known.doubtful == {"threads"}
    assert known.untried(others)[-1] == others[0]
    assert known.ranking.ordered(others)[0] == others[0]


def test_known_trials_are_not_repeated_by_a_resumed_search() -> None:
    known = memory()
    first = drive(default_strategy(space(), known), lambda plan: trial(plan, 1.3), most=4)

    second = drive(default_strategy(space(), known), lambda plan: trial(plan, 1.3))

    assert not set(first[:3]) & set(second)


def test_the_exhaustive_strategy_tries_everything() -> None:
    asked = drive(exhaustive_strategy(space(), memory()), lambda plan: trial(plan, 1.1))

    assert set(asked) == space().everything()


def test_rungs_are_plans_of_plain_techniques_only() -> None:
    assert is_rung(Plan.of([InferenceMode(), Threads(count=1)]))
    assert not is_rung(Plan.of([InferenceMode(), Engine()]))


def test_what_was_refused_is_made_milder_until_it_passes_with_as_little_as_needed() -> None:
    asked: list[int] = []

    def answer(plan: Plan) -> Trial:
        dial = next((t for t in plan if isinstance(t, Dial)), None)
        if dial is None:
            return trial(plan, 1.05)
        asked.append(dial.keep)
        return trial(plan, 9.0 - dial.keep) if dial.keep >= 3 else trial(plan, None, Outcome.QUALITY_FAILED)

    known = memory()
    dialled = space_of(WORK, MACHINE, {"engine": Engine, "dial": Dial, "inference-mode": InferenceMode})
    drive(default_strategy(dialled, known), answer)

    assert asked[:4] == [0, 4, 2, 3]
    assert known.leader is not None
    assert Dial(keep=3) in known.leader.plan.techniques


def test_what_would_not_beat_the_leader_is_not_made_milder() -> None:
    class Heavy(Dial):
        def rewrite(self, cost: Cost) -> Cost:
            return cost.replace(flops=cost.flops * 3)

    def answer(plan: Plan) -> Trial:
        if any(isinstance(t, Dial) for t in plan):
            return trial(plan, None, Outcome.QUALITY_FAILED)
        return trial(plan, 1000.0)

    dialled = space_of(WORK, MACHINE, {"engine": Engine, "dial": Heavy, "inference-mode": InferenceMode})
    asked = drive(default_strategy(dialled, memory()), answer)

    assert {t.keep for plan in asked for t in plan if isinstance(t, Dial)} == {0}


PRUNABLE = {"engine": Engine, "prune": Prune, "repair": Repair, "inference-mode": InferenceMode}


def test_what_was_refused_is_tried_again_at_once_with_its_quality_won_back() -> None:
    def answer(plan: Plan) -> Trial:
        if Prune() in plan.techniques and Repair() not in plan.techniques:
            return trial(plan, None, Outcome.QUALITY_FAILED)
        return trial(plan, 9.0 if Prune() in plan.techniques else 1.5)

    known = memory()
    asked = drive(default_strategy(space_of(WORK, MACHINE, PRUNABLE), known), answer)

    refused = next(plan for plan in asked if Prune() in plan.techniques)
    assert asked[asked.index(refused) + 1] == Plan.of([*refused.techniques, Repair()])
    assert known.leader is not None
    assert {Prune(), Repair(), Engine()} <= set(known.leader.plan.techniques)


@pytest.mark.parametrize(("verdict", "follows"), [(QualityVerdict.CANNOT_TELL, True), (QualityVerdict.HELD, False)])
def test_a_leader_that_may_yet_be_refused_is_followed_by_a_milder_form_of_itself(
    verdict: QualityVerdict, follows: bool
) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Cut(Prune):
        share: float = 0.5

        @classmethod
        def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
            yield cls(share=0.25)
            yield cls()

        def rewrite(self, cost: Cost) -> Cost:
            return cost.replace(flops=cost.flops * (1 - self.share) ** 2)

    def answer(plan: Plan) -> Trial:
        cut = next((t for t in plan if isinstance(t, Cut)), None)
        if cut is None:
            return trial(plan, 1.5)
        if Repair() not in plan.techniques:
            return trial(plan, None, Outcome.QUALITY_FAILED)
        told = verdict if cut.share > 0.3 else QualityVerdict.HELD
        return trial(plan, 20 * cut.share).replace(quality=Quality(told, "toy", 300, 0.01))

    kinds = {"engine": Engine, "cut": Cut, "repair": Repair, "threads": Threads, "inference-mode": InferenceMode}
    asked = drive(default_strategy(space_of(WORK, MACHINE, kinds), memory()), answer)

    pruned = [plan for plan in asked if any(isinstance(t, Cut) for t in plan)]
    assert Cut() in pruned[0].techniques and Plan.of([*pruned[0].techniques, Repair()]) == pruned[1]
    milder = Plan(tuple(Cut(share=0.25) if t == Cut() else t for t in pruned[0]))
    assert ([milder, Plan.of([*milder.techniques, Repair()])] == pruned[2:4]) is follows


def test_what_lost_most_of_its_score_is_not_trained() -> None:
    def answer(plan: Plan) -> Trial:
        if Prune() not in plan.techniques:
            return trial(plan, 1.5)
        ruin = Quality(QualityVerdict.NOT_HELD, "Tango", 300, 0.01, baseline=0.95, candidate=0.1, drop=0.85)
        return trial(plan, None, Outcome.QUALITY_FAILED).replace(quality=ruin)

    asked = drive(default_strategy(space_of(WORK, MACHINE, PRUNABLE), memory()), answer)

    assert any(Prune() in plan.techniques for plan in asked)
    assert not any(Repair() in plan.techniques for plan in asked)


def test_what_pruning_ruined_is_not_rounded_more_mildly() -> None:
    def answer(plan: Plan) -> Trial:
        if Prune() not in plan.techniques:
            return trial(plan, 3.0 if Dial() in plan.techniques else 1.5)
        ruin = Quality(QualityVerdict.NOT_HELD, "Tango", 300, 0.01, baseline=0.95, candidate=0.1, drop=0.85)
        return trial(plan, None, Outcome.QUALITY_FAILED).replace(quality=ruin)

    asked = drive(default_strategy(space_of(WORK, MACHINE, {**PRUNABLE, "dial": Dial}), memory()), answer)

    both = [plan for plan in asked if Prune() in plan.techniques and Dial() in plan.techniques]
    assert both
    assert not any(Prune() in plan.techniques and t.keep for plan in asked for t in plan if isinstance(t, Dial))


def test_nothing_is_won_back_where_nothing_was_lost() -> None:
    asked = drive(default_strategy(space_of(WORK, MACHINE, PRUNABLE), memory()), lambda plan: trial(plan, 1.5))

    assert any(Prune() in plan.techniques for plan in asked)
    assert not any(Repair() in plan.techniques for plan in asked)


def test_a_plan_whose_quality_was_not_won_back_is_given_up() -> None:
    def answer(plan: Plan) -> Trial:
        if Prune() in plan.techniques:
            return trial(plan, None, Outcome.QUALITY_FAILED)
        return trial(plan, 1.5)

    known = memory()
    asked = drive(default_strategy(space_of(WORK, MACHINE, PRUNABLE), known), answer)

    assert len(asked) == len(set(asked))
    assert known.leader is not None
    assert Prune() not in known.leader.plan.techniques


def test_a_training_that_ran_out_of_time_leaves_its_compiler_to_other_plans() -> None:
    def answer(plan: Plan) -> Trial:
        if Prune() not in plan.techniques:
            return trial(plan, 1.5)
        return trial(plan, None, Outcome.TIMEOUT if Repair() in plan.techniques else Outcome.QUALITY_FAILED)

    asked = drive(default_strategy(space_of(WORK, MACHINE, PRUNABLE), memory()), answer)

    ended = next(index for index, plan in enumerate(asked) if Repair() in plan.techniques)
    assert any(Engine() in plan.techniques for plan in asked[ended + 1 :])
    assert not any({Repair(), Engine()} <= set(plan.techniques) for plan in asked[ended + 1 :])


def test_a_quantized_plan_is_made_milder_before_it_is_trained() -> None:
    def answer(plan: Plan) -> Trial:
        dial = next((t for t in plan if isinstance(t, Dial)), None)
        if dial is None:
            return trial(plan, 1.05)
        holds = Repair() in plan.techniques or dial.keep > 4
        return trial(plan, 1.2 if dial.keep else 20.0) if holds else trial(plan, None, Outcome.QUALITY_FAILED)

    kinds = {"engine": Engine, "dial": Dial, "repair": Repair, "inference-mode": InferenceMode}
    able = dataclasses.replace(WORK, facts=WORK.facts | {Fact.PRUNED})
    known = memory()
    asked = drive(default_strategy(space_of(able, MACHINE, kinds), known), answer)

    trained = asked.index(Plan.of([Dial(), Repair(), Engine()]))
    assert any(isinstance(t, Dial) and t.keep for plan in asked[:trained] for t in plan)
    assert known.leader is not None
    assert known.leader.plan == asked[trained]


def test_what_ran_out_of_time_is_not_tried_with_other_settings() -> None:
    def answer(plan: Plan) -> Trial:
        slow = Turbine() in plan.techniques and Halve() in plan.techniques
        return trial(plan, None, Outcome.TIMEOUT) if slow else trial(plan, 3.0 if Turbine() in plan.techniques else 1.5)

    asked = drive(default_strategy(space(), memory()), answer)

    assert sum(Turbine() in plan.techniques and Halve() in plan.techniques for plan in asked) == 1
    assert sum(Turbine() in plan.techniques for plan in asked) > 2
