"""How a training's techniques are chosen: a pure strategy, driven with made-up speeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.toys import MACHINE, WORK
from vivace.core.facts import OF_THE_MACHINE
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.run import StepTrial
from vivace.search.training.choose import START, facts_of, greedy, settings_of
from vivace.techniques.compile.compiled_training import CompiledTraining
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.memory.foreach_optimizer import ForeachOptimizer
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.techniques.precision.cuda_bfloat16 import CudaBfloat16
from vivace.techniques.target.captured_step import CapturedStep


def chosen(
    settings: Sequence[Technique], seconds: Callable[[Plan], float], never_pays: str = ""
) -> tuple[str, list[str]]:
    """The plan that is found where a step of a plan takes so long, and the plans that were tried. The technique that
    never pays is not accepted, however fast it is."""
    strategy, tried, best = greedy(settings, START | OF_THE_MACHINE), list[str](), Plan()
    plan = next(strategy)
    while True:
        tried.append(str(plan))
        ratio = seconds(best) / seconds(plan)
        accepted = ratio > 1.02 and never_pays not in {technique.name() for technique in plan}
        trial = StepTrial(plan, Outcome.OK, Interval(ratio, ratio, ratio), 0.0, accepted, over=best)
        best = plan if accepted else best
        try:
            plan = strategy.send(trial)
        except StopIteration as end:
            return str(end.value), tried


def test_what_wins_only_together_is_found() -> None:
    def seconds(plan: Plan) -> float:
        return {"bfloat16": 1.1, "compiled-training": 1.0, "bfloat16 + compiled-training": 0.5}.get(str(plan), 1.0)

    assert chosen([Bfloat16(), CompiledTraining()], seconds)[0] == "bfloat16 + compiled-training"


def test_what_was_too_slow_before_another_was_there_is_tried_again() -> None:
    def seconds(plan: Plan) -> float:
        return {"bfloat16": 1.1, "compiled-training": 0.9, "bfloat16 + compiled-training": 0.5}.get(str(plan), 1.0)

    found, tried = chosen([Bfloat16(), CompiledTraining()], seconds)

    assert found == "bfloat16 + compiled-training"
    assert tried == ["bfloat16", "compiled-training", "bfloat16 + compiled-training"]


def test_a_precision_is_tried_beside_a_compiler_as_soon_as_that_is_kept() -> None:
    def seconds(plan: Plan) -> float:
        return {"bfloat16": 1.1, "recorded-step": 0.8, "bfloat16 + recorded-step": 0.4}.get(str(plan), 0.9)

    found, tried = chosen([Bfloat16(), RecordedStep(), CompiledTraining()], seconds)

    assert found == "bfloat16 + recorded-step"
    assert tried == ["bfloat16", "recorded-step", "bfloat16 + recorded-step", "bfloat16 + compiled-training"]


def test_another_number_of_threads_is_tried_again_when_a_compiler_has_made_a_step_of_it() -> None:
    def seconds(plan: Plan) -> float:
        alone = {"threads(count=1)": 0.8, "threads(count=2)": 1.0, "fused-optimizer": 1.1}
        return alone.get(str(plan), 0.3 if "count=2" in str(plan) else 0.4 if "recorded" in str(plan) else 1.0)

    found, tried = chosen([FusedOptimizer(), Threads(2), Threads(1), RecordedStep()], seconds)

    assert found == "threads(count=2) + recorded-step"
    assert tried[-2:] == ["threads(count=2) + recorded-step", "fused-optimizer + threads(count=2) + recorded-step"]


def test_what_cannot_stand_beside_another_is_tried_in_its_place() -> None:
    speeds = {"compiled-training": 0.9, "recorded-step": 0.8, "foreach-optimizer": 0.9, "fused-optimizer": 0.7}

    def seconds(plan: Plan) -> float:
        product = 1.0
        for technique in plan:
            product *= speeds[technique.name()]
        return product

    settings = [ForeachOptimizer(), FusedOptimizer(), CompiledTraining(), RecordedStep()]

    assert chosen(settings, seconds)[0] == "fused-optimizer + recorded-step"


def test_every_number_of_threads_is_tried_and_the_fastest_kept() -> None:
    speeds = {"original": 1.0, "threads(count=1)": 0.9, "threads(count=2)": 0.5, "threads(count=4)": 0.6}

    found, tried = chosen([Threads(1), Threads(2), Threads(4)], lambda plan: speeds[str(plan)])

    assert found == "threads(count=2)"
    assert len(tried) == 3


def test_of_a_compilers_scopes_the_first_that_is_kept_ends_the_trying() -> None:
    found, tried = chosen(
        [CompiledTraining("step"), CompiledTraining("loss"), CompiledTraining("model")],
        lambda plan: 0.5 if len(plan) else 1.0,
    )

    assert found == "compiled-training"
    assert tried == ["compiled-training"]


def test_a_compilation_that_the_training_is_too_short_for_is_tried_once() -> None:
    found, tried = chosen(
        [CompiledTraining(), RecordedStep()], lambda plan: 0.5 ** len(plan), never_pays="compiled-training"
    )

    assert found == "recorded-step"
    assert tried == ["compiled-training", "recorded-step"]


def test_what_takes_long_to_build_comes_last_in_its_stage() -> None:
    known = {kind.name(): kind for kind in (CompiledTraining, RecordedStep, FusedOptimizer)}

    names = [technique.name() for technique in settings_of(WORK, MACHINE, known)]

    assert list(dict.fromkeys(names)) == ["fused-optimizer", "recorded-step", "compiled-training"]


def test_a_training_on_a_card_tries_nothing_for_the_processor_alone() -> None:
    facts = facts_of(MACHINE, "cuda") | OF_THE_MACHINE

    assert Plan.of([Threads(1)]).illegal(facts) is not None
    assert Plan.of([CudaBfloat16(), CompiledTraining("loss"), CapturedStep()]).illegal(facts) is None


def test_a_whole_compiled_step_leaves_no_passes_to_capture() -> None:
    for whole in (CompiledTraining("step"), RecordedStep()):
        reason = Plan.of([whole, CapturedStep()]).illegal(facts_of(MACHINE, "cuda") | OF_THE_MACHINE)
        assert reason is not None and "gradients that autograd's backward pass computes" in reason
