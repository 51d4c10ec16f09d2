"""Which techniques a training gets: one after the other, each kept if its steps are the same and measured faster."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence

from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.plan import Plan
from vivace.core.registry import missing_package
from vivace.core.technique import Effect, Technique
from vivace.core.training.run import StepTrial
from vivace.core.work import Work

START = frozenset(
    {
        Fact.TRAINING, Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.UNCOMPILED, Fact.ON_CPU, Fact.RUNNABLE,
        Fact.HAS_CONV2D, Fact.HAS_LINEAR, Fact.FED_ON_DEMAND,
    }
)  # fmt: skip
"""What is true of a job's step as it was given. Whether there is a convolution a technique finds out itself."""

Strategy = Generator[Plan, StepTrial, Plan]


def facts_of(machine: Machine) -> frozenset[Fact]:
    """What plans for a training on this machine start from."""
    return START | machine.facts()


def settings_of(
    work: Work,
    machine: Machine,
    known: Mapping[str, type[Technique]],
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    changed: bool = False,
) -> list[Technique]:
    """Every setting worth trying, in the order of stages. What changes the computation by design must be asked for."""
    found: list[Technique] = []
    for name, kind in known.items():
        is_asked = name in only if only else name not in without
        is_allowed = changed or kind.training_effect() is not Effect.CHANGED
        if kind.trains() and is_asked and is_allowed and missing_package(kind) is None:
            found += kind.variants(work, machine)
    return sorted(found, key=lambda technique: technique.stage.value)


def greedy(settings: Iterable[Technique], facts: frozenset[Fact]) -> Strategy:
    """Add one technique at a time, in the order of stages; of the settings of one technique the first that is
    kept; of a technique that is to be tuned, each that is faster takes the place of the one before.

    Yields the plan to try, is sent its trial, and returns the best plan.
    """
    best = Plan()
    for technique in settings:
        others = [other for other in best if other.name() != technique.name()]
        if len(others) < len(best) and not technique.tuned:
            continue
        plan = Plan.of([*others, technique])
        if plan.illegal(facts) is not None:
            continue
        trial = yield plan
        if trial.accepted:
            best = plan
    return best
