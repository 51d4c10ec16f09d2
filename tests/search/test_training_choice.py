"""The greedy choice of a training's techniques: the first setting that is kept, or the fastest where that is tuned."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vivace.api.step_plans import trained_with
from vivace.api.together.choosing import scaling_of
from vivace.core.facts import Fact
from vivace.core.measurement import Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.training.run import StepTrial
from vivace.distributed.layout import Layout
from vivace.search.training.choose import START, greedy, refusals
from vivace.search.training.layouts import guessed_seconds, ranked
from vivace.techniques.compile.compiled_training import CompiledTraining
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.feed.sample_prefetch import SamplePrefetch
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.parallel.layouts import techniques_of
from vivace.techniques.parallel.threads import Threads


def tried(settings: list[object], accepted: set[str]) -> tuple[list[str], Plan]:
    """The plans that were asked for, and the choice, where these plans are faster than the best so far."""
    strategy, asked = greedy(settings, START), list[str]()  # type: ignore[arg-type]
    plan = next(strategy)
    while True:
        asked.append(str(plan))
        try:
            plan = strategy.send(StepTrial(plan, Outcome.OK, None, 0.0, str(plan) in accepted))
        except StopIteration as ended:
            return asked, ended.value


@pytest.mark.parametrize("verdict", list(SpeedVerdict))
def test_only_a_plan_that_was_confirmed_to_be_faster_trains(verdict: SpeedVerdict) -> None:
    plan = Plan((SampleCache(),))

    assert (trained_with(plan, verdict) == plan) == (verdict is SpeedVerdict.FASTER)


def test_techniques_are_added_to_a_layout_which_stays() -> None:
    start, facts = Plan.of(techniques_of(Layout(data=2))), START | {Fact.CXX_COMPILER}
    strategy, asked = greedy([FusedOptimizer(), Threads(1), RecordedStep()], facts, start), list[str]()
    plan = next(strategy)
    with pytest.raises(StopIteration) as ended:
        while True:
            asked.append(str(plan))
            plan = strategy.send(StepTrial(plan, Outcome.OK, None, 0.0, isinstance(plan.techniques[0], FusedOptimizer)))

    assert asked[:2] == ["fused-optimizer + data-parallel", "fused-optimizer + threads(count=1) + data-parallel"]
    assert set(start.techniques) <= set(ended.value.value.techniques)


def test_what_cannot_stand_beside_a_layout_is_told_once_for_each_technique() -> None:
    start, facts = Plan.of(techniques_of(Layout(tensor=2))), START | {Fact.CXX_COMPILER}
    settings = [FusedOptimizer(), Threads(1), CompiledTraining(), CompiledTraining("loss")]

    found = refusals(settings, facts, start)

    assert [str(trial.plan) for trial in found] == [
        "fused-optimizer + tensor-parallel", "tensor-parallel + compiled-training",
    ]  # fmt: skip
    assert {trial.outcome for trial in found} == {Outcome.UNSUPPORTED}
    assert "tensor-parallel took away" in found[1].reason
    assert refusals(settings, facts, Plan()) == []


def test_layouts_are_tried_from_the_one_that_exchanges_least_for_what_it_divides() -> None:
    step = SimpleNamespace(step_seconds=0.1, parameter_bytes=4e6, activation_bytes=1e5)

    found = ranked(Layout.every(2), step, places=2)  # type: ignore[arg-type]

    assert [str(one).partition("=")[0] for one in found] == ["tensor", "data", "shard", "pipeline"]


def test_processes_that_share_a_core_divide_no_computing() -> None:
    step = SimpleNamespace(step_seconds=0.1, parameter_bytes=4e6, activation_bytes=1e5)
    seconds = [guessed_seconds(Layout(data=count), step, places=1) for count in (1, 2, 4)]  # type: ignore[arg-type]

    assert seconds == sorted(seconds)


def test_what_layouts_took_beside_one_process_is_kept_for_the_laws() -> None:
    two, four = (
        StepTrial(Plan.of(techniques_of(Layout(data=count))), Outcome.OK, Interval(ratio, ratio, ratio), 0.0, False,
                  seconds=4e-3 / ratio, over_seconds=4e-3)
        for count, ratio in ((2, 1.6), (4, 2.0))
    )  # fmt: skip
    failed = StepTrial(Plan.of(techniques_of(Layout(shard=4))), Outcome.CRASHED, None, 0.0, False)

    found = scaling_of(four, [two, four, failed])

    assert found is not None
    assert (found.processes, found.one_seconds, found.step_seconds) == (4, 4e-3, 2e-3)
    assert [(one.processes, one.layout) for one in found.counts] == [(2, "data=2"), (4, "data=4")]


def test_a_technique_that_is_not_tuned_keeps_its_first_setting_that_is_faster() -> None:
    on_disk, in_memory = SampleCache(on="disk"), SampleCache()

    assert tried([on_disk, in_memory], {str(on_disk)}) == ([str(on_disk)], Plan((on_disk,)))
    assert tried([on_disk, in_memory], {str(in_memory)}) == ([str(on_disk), str(in_memory)], Plan((in_memory,)))


def test_every_setting_of_a_tuned_technique_is_tried_in_place_of_the_best_so_far() -> None:
    cache, one, two, deep = SampleCache(), SamplePrefetch(), SamplePrefetch(workers=2), SamplePrefetch(depth=8)
    faster = {str(cache), str(Plan((cache, one))), str(Plan((cache, deep)))}

    asked, chosen = tried([cache, one, two, deep], faster)

    assert asked == [str(cache), *(str(Plan((cache, setting))) for setting in (one, two, deep))]
    assert chosen == Plan((cache, deep))


def test_what_was_not_tried_since_it_could_not_be_faster_is_asked_for_once_more_beside_another_plan() -> None:
    strategy, asked = greedy([SampleCache(), FusedOptimizer()], START), list[str]()
    plan = next(strategy)
    with pytest.raises(StopIteration):
        while True:
            asked.append(str(plan))
            fused = "fused" in str(plan)
            speedup = Interval(1.5, 1.4, 1.6) if fused else None
            outcome = Outcome.OK if fused else Outcome.NOT_FASTER
            plan = strategy.send(StepTrial(plan, outcome, speedup, 0.0, fused and len(plan) == 1))

    assert asked == ["sample-cache", "fused-optimizer", "sample-cache + fused-optimizer"]
