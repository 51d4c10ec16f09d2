"""Which techniques a training's search begins with, and which it need not try, from where a step's time goes."""

from __future__ import annotations

import dataclasses

import pytest

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.bound import StepBound
from vivace.core.training.run import Advice, Basis, Diagnosis, StepTrial
from vivace.search.training.promise import Promising, Room, no_time, promise
from vivace.techniques.compile.compiled_training import CompiledTraining
from vivace.techniques.compile.native_step import NativeStep
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.feed.sample_prefetch import SamplePrefetch
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.memory.foreach_optimizer import ForeachOptimizer
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.techniques.target.captured_step import CapturedStep

SETTINGS: list[Technique] = [
    SampleCache(), Bfloat16(), ChannelsLast(), FusedOptimizer(), Threads(1), NativeStep(), CompiledTraining(),
]  # fmt: skip


def diagnosis(waiting: float = 0.0, update: float = 0.0, overhead: float = 0.0, flops: float = 0.0) -> Diagnosis:
    """A step of one second, of which so much goes to each; a ceiling of one GFLOP/s."""
    return Diagnosis(
        steps=20, threads=1, step_seconds=1.0, input_seconds=waiting, forward_seconds=(1 - waiting - update) / 2,
        backward_seconds=(1 - waiting - update) / 2, update_seconds=update, overhead_seconds=overhead,
        evaluate_seconds=None, flops=flops * 1e9, ceiling_gflops=1.0, parameter_bytes=0, gradient_bytes=0,
        optimizer_bytes=0, activation_bytes=0, bound=StepBound.MEMORY, evidence="",
    )  # fmt: skip


def order_of(found: Diagnosis) -> list[Technique]:
    """In which settings are tried while none is accepted."""
    return list(Promising(SETTINGS, found))


def trial(plan: Plan, over: Plan, speedup: float) -> StepTrial:
    return StepTrial(plan, Outcome.OK, Interval(speedup, speedup, speedup), 0.0, True, over=over)


@pytest.mark.parametrize(
    ("found", "first"),
    [
        (diagnosis(waiting=0.6, overhead=0.1), "sample-cache"),
        (diagnosis(waiting=0.01, overhead=0.4), "native-step"),
        (diagnosis(update=0.5, overhead=0.1), "fused-optimizer"),
        (diagnosis(flops=0.9, overhead=0.05), "bfloat16"),
    ],
)
def test_what_acts_on_most_of_a_step_is_tried_first(found: Diagnosis, first: str) -> None:
    assert order_of(found)[0].name() == first


def test_what_takes_long_to_build_must_promise_more() -> None:
    order = [one.name() for one in order_of(diagnosis(update=0.3, overhead=0.2))]

    assert order.index("native-step") < order.index("fused-optimizer") < order.index("compiled-training")


def test_on_a_card_what_starts_all_kernels_at_once_comes_before_what_starts_them_one_by_one() -> None:
    settings = [RecordedStep(), CapturedStep()]
    seen = Advice("", "captured-step", 2.0, Basis.MEASURED)
    on_card = dataclasses.replace(diagnosis(overhead=0.7), device="cuda", advice=(seen,))

    order = [one.name() for one in Promising(settings, on_card)]
    assert order == ["captured-step", "recorded-step"]
    assert promise(RecordedStep(), on_card) < promise(RecordedStep(), diagnosis(overhead=0.7))


def test_what_was_tried_in_passing_is_taken_at_its_word_and_the_unknown_last() -> None:
    advice = (Advice("", "threads(count=1)", 1.5, Basis.MEASURED),)
    found = dataclasses.replace(diagnosis(), advice=advice)

    assert promise(Threads(1), found) == 1.5
    assert promise(Threads(2), found) == promise(ChannelsLast(), found) == 1.0
    assert order_of(found)[0] == Threads(1)
    assert set(order_of(found)) == set(SETTINGS)


def test_what_feeds_a_step_that_hardly_waits_is_not_tried() -> None:
    room = Room.of(diagnosis(waiting=0.01, update=0.3))

    refused = room.refusal(Plan(), Plan((SampleCache(),)))

    assert refused is not None
    assert (refused.outcome, refused.speedup, refused.accepted) == (Outcome.NOT_FASTER, None, False)
    assert refused.reason == "waiting for its batch is 1.0% of a step: 1.010 times as fast at most, PREDICTED"
    assert room.refusal(Plan(), Plan((FusedOptimizer(),))) is None
    assert room.refusal(Plan(), Plan.of([SampleCache(), FusedOptimizer()])) is None
    assert Room.of(diagnosis(update=0.01)).refusal(Plan(), Plan((ForeachOptimizer(),))) is not None


def test_waiting_that_a_cache_has_won_is_not_there_for_another_feed() -> None:
    cache, both = Plan((SampleCache(),)), Plan.of([SampleCache(), SamplePrefetch()])
    room = Room.of(diagnosis(waiting=0.29))
    assert room.refusal(Plan(), cache) is None

    left = room.after(trial(cache, Plan(), 1.4))

    assert left.waiting == pytest.approx(0.29 - (1 - 1 / 1.4))
    assert left.refusal(cache, both) is not None


def test_a_step_that_became_shorter_waits_for_more_of_it() -> None:
    step, fed = Plan((NativeStep(),)), Plan.of([SampleCache(), NativeStep()])
    room = Room.of(diagnosis(waiting=0.015))
    assert room.refusal(Plan(), Plan((SampleCache(),))) is not None

    assert room.after(trial(step, Plan(), 3.0)).refusal(step, fed) is None


def test_what_takes_longer_to_build_than_is_left_leaves_the_time_to_others() -> None:
    cache, compiled = Plan((SampleCache(),)), Plan.of([SampleCache(), CompiledTraining()])

    assert no_time(cache, compiled, 60.0) is None
    assert no_time(compiled, Plan.of([*compiled, FusedOptimizer()]), 5.0) is None  # it is built already
    refused = no_time(cache, compiled, 5.0)
    assert refused is not None
    assert (refused.outcome, refused.reason) == (Outcome.CANCELLED, "it takes about 30 s to build, and 5 s are left")
    assert no_time(cache, compiled, -1.0) is None  # the time is over for all


def test_what_an_accepted_compiler_won_promises_nothing_any_more() -> None:
    found = diagnosis(waiting=0.3, overhead=0.5)
    order = Promising([RecordedStep(), NativeStep(), SampleCache(), FusedOptimizer()], found)
    plan = Plan((NativeStep(),))
    turns = iter(order)
    first = next(turns)
    accepted = trial(plan, Plan(), 2.0)  # half of the step: all of the time between operators

    order.after(accepted)

    assert str(first) == "native-step"
    assert str(next(turns)) == "sample-cache"


def test_what_feeds_won_leaves_compilers_as_they_were() -> None:
    found = diagnosis(waiting=0.5, overhead=0.3)
    order, plan = Promising([SampleCache(), SamplePrefetch(), NativeStep()], found), Plan((SampleCache(),))
    turns = iter(order)
    next(turns)
    accepted = trial(plan, Plan(), 1.9)

    order.after(accepted)

    assert [str(one) for one in turns] == ["native-step", "sample-prefetch"]
