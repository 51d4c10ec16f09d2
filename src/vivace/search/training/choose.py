"""Which techniques a training gets: one after the other, each kept if its steps are the same and measured faster."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.registry import missing_package
from vivace.core.technique import Effect, Stage, Technique
from vivace.core.training.run import StepTrial
from vivace.core.work import Work

START = frozenset(
    {
        Fact.TRAINING, Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.UNCOMPILED, Fact.ON_CPU, Fact.RUNNABLE,
        Fact.HAS_CONV2D, Fact.HAS_LINEAR, Fact.FED_ON_DEMAND, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS,
        Fact.PLAIN_OPTIMIZER, Fact.AUTOGRAD, Fact.ONE_PROCESS, Fact.WHOLE_LAYERS, Fact.WHOLE_CHAIN, Fact.ONE_COPY,
    }
)  # fmt: skip
"""What is true of a job's step as it was given. Whether there is a convolution a technique finds out itself."""

LEAST_GAIN = 1.02
"""A technique is kept if even the lower end of its speed-up is above this."""

Strategy = Generator[Plan, StepTrial, Plan]


def facts_of(machine: Machine, device: str = "cpu") -> frozenset[Fact]:
    """What plans for a training on this machine start from, whose model lies on `device`, cpu or cuda."""
    start = START if device == "cpu" else START - {Fact.ON_CPU} | {Fact.ON_CUDA}
    return start | machine.facts()


def settings_of(
    work: Work,
    machine: Machine,
    known: Mapping[str, type[Technique]],
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    changed: bool = False,
) -> list[Technique]:
    """Every setting worth trying, in the order of stages, what takes long to build last in each. What changes the
    computation by design must be asked for."""
    found: list[Technique] = []
    for name, kind in known.items():
        is_asked = name in only if only else name not in without
        is_allowed = changed or kind.training_effect() is not Effect.CHANGED
        if kind.trains() and is_asked and is_allowed and missing_package(kind) is None:
            found += kind.variants(work, machine)
    return sorted(found, key=lambda technique: (technique.stage.value, technique.build_seconds))


def greedy(settings: Iterable[Technique], facts: frozenset[Fact], start: Plan | None = None) -> Strategy:
    """Add one technique at a time, in the order in which they come; of the settings of one technique the first that is
    kept; of a technique that tries all, each that is faster takes the place of the one before. Techniques of the plan
    to `start` from, such as those of a layout, stay.

    One that cannot stand beside another of its stage is tried in its place. What was refused for its speed alone is
    tried once more if the plan has changed since, other settings of what it has included: a precision at once when a
    compiler is kept, the others at the end. So is what was not tried, since it could not be faster. Then, in pairs,
    what often wins only together (`TOGETHER`).

    Yields the plan to try, is sent its trial, and returns the best plan.
    """
    best, slow = start or Plan(), dict[Technique, Plan]()
    held = best.techniques
    for technique in settings:
        plan = added(best, (technique,), facts, held)
        if plan is None or (_has(best, technique) and not technique.tries_all):
            continue
        trial = yield plan
        if trial.accepted:
            best = plan
            if technique.stage is Stage.COMPILE:
                best = yield from _again(best, slow, [one for one in slow if one.stage is Stage.PRECISION], facts, held)
        elif _is_slow(trial):
            slow[technique] = best
    best = yield from _again(best, slow, sorted(slow, key=lambda one: one.stage in LEAST_CHANGED), facts, held)
    for pair in _pairs(list(slow)):
        plan = added(best, pair, facts, held)
        if plan is not None and not any(_has(best, technique) for technique in pair):
            best = plan if (yield plan).accepted else best
    return best


def _again(
    best: Plan, slow: dict[Technique, Plan], techniques: Sequence[Technique], facts: frozenset[Fact],
    held: Sequence[Technique],
) -> Strategy:  # fmt: skip
    """Try these once more, each if the plan has changed since it was found to be slow; `slow` says beside which."""
    for technique in techniques:
        plan = added(best, (technique,), facts, held)
        if plan is not None and best != slow[technique] and (technique.tries_all or not _has(best, technique)):
            slow[technique] = best
            best = plan if (yield plan).accepted else best
    return best


LEAST_CHANGED = frozenset({Stage.FEED, Stage.MEMORY})
"""What a step gains here depends little on what else is in the plan; a number of threads and a precision may be worth
something else beside a compiler."""

TOGETHER = (Stage.PRECISION, Stage.COMPILE)
"""Casting to narrower numbers costs about what it saves until a compiler makes casts part of other kernels."""


def added(
    best: Plan, techniques: Sequence[Technique], facts: frozenset[Fact], held: Sequence[Technique] = ()
) -> Plan | None:
    """A plan with these techniques too, in place of other settings of theirs and, if it is not legal otherwise, of
    what else is in their stages and is not `held`; None where there is none."""
    names = {technique.name() for technique in techniques}
    stages = {technique.stage for technique in techniques}
    others = [other for other in best if other.name() not in names]
    apart = [other for other in others if other.stage not in stages or other in held]
    plans = (Plan.of([*kept, *techniques]) for kept in (others, apart))
    return next((plan for plan in plans if plan != best and plan.illegal(facts) is None), None)


def refusals(settings: Iterable[Technique], facts: frozenset[Fact], start: Plan) -> list[StepTrial]:
    """The techniques that cannot stand beside a plan to start from, though each could by itself, and why."""
    firsts = {technique.name(): technique for technique in reversed(list(settings))}
    found = []
    for technique in reversed(firsts.values()):
        plan = Plan.of([*start, technique])
        reason = plan.illegal(facts)
        if reason is not None and Plan((technique,)).illegal(facts) is None:
            found.append(StepTrial(plan, Outcome.UNSUPPORTED, None, 0.0, False, reason, over=start))
    return found


def _is_slow(trial: StepTrial) -> bool:
    """Whether it was refused for its speed alone; not one that never pays for its compiler."""
    if trial.speedup is None:
        return trial.outcome is Outcome.NOT_FASTER
    return trial.speedup.low <= LEAST_GAIN


def _has(plan: Plan, technique: Technique) -> bool:
    return any(other.name() == technique.name() for other in plan)


def _pairs(slow: Sequence[Technique]) -> Iterator[tuple[Technique, Technique]]:
    """The first setting of each technique of the one stage with that of each of the other."""
    firsts = {technique.name(): technique for technique in reversed(slow)}.values()
    sides = [[technique for technique in firsts if technique.stage is stage] for stage in TOGETHER]
    yield from itertools.product(*sides)


def pays_after(trial_first: float, best_first: float, saved: float) -> int | None:
    """Steps after which a slower first step (seconds) has paid for itself by the seconds that each later one saves;
    None where nothing is saved.

    >>> pays_after(trial_first=3.0, best_first=1.0, saved=1e-3)
    2000
    """
    return max(0, math.ceil((trial_first - best_first) / saved)) if saved > 0 else None
