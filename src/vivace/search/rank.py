"""Which plan is likely to be fastest: the roofline's prediction, corrected by what was measured so far."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.plan import Plan
from vivace.core.technique import Effect, Stage, Technique
from vivace.devices.caches import last_level_bytes
from vivace.devices.roofline import predicted_seconds

DEFINING = (Stage.PRECISION, Stage.COMPILE, Stage.TARGET)
"""Stages whose techniques decide what runs; those of the others add to it."""


@dataclasses.dataclass
class Ranking:
    """Predicted seconds of a plan, with what measurements taught.

    A plan's correction is the mean log ratio of measured to predicted seconds over the measured plans that share all
    that decides their answers; failing that their compiler and precisions whatever their settings; failing that their
    compiler; failing that all. The baseline's own measurement anchors it.
    Where a technique was measured with and without beside one compiler, that effect replaces its own promise there, and
    beside compilers for which it is not known.
    """

    cost: Cost
    seconds_of: Callable[[Cost], float]
    measured: dict[Plan, float] = dataclasses.field(default_factory=dict)
    effects: dict[tuple[str, str], float] = dataclasses.field(default_factory=dict)

    @staticmethod
    def on(machine: Machine, cost: Cost) -> Ranking:
        """A ranking by the roofline of a machine, of plans for a job of this cost."""
        cache_bytes = last_level_bytes() or 0
        return Ranking(cost, lambda rewritten: predicted_seconds(rewritten, machine, cache_bytes))

    def learn(self, plan: Plan, measured_seconds: float) -> None:
        """Remember a measurement, and what each technique of it was worth where the plan without it is known too."""
        self.measured[plan] = measured_seconds
        for technique in plan:
            rest = self._measured_without(plan, technique)
            if technique.stage not in DEFINING and rest is not None:
                key = (str(technique), compiler_of(plan))
                self.effects[key] = math.log(measured_seconds / rest)

    def _measured_without(self, plan: Plan, technique: Technique) -> float | None:
        """Seconds of the plan less a technique, or less that and what mended its answers, which costs no time."""
        rest = without(plan, technique)
        unmended = Plan(tuple(t for t in rest if not t.mends))
        return next((self.measured[known] for known in (rest, unmended) if known in self.measured), None)

    def _effect(self, technique: Technique, compiler: str) -> float | None:
        """What a technique was measured to be worth beside a compiler; failing that, beside the others on average."""
        own = self.effects.get((str(technique), compiler))
        others = [effect for (name, _), effect in self.effects.items() if name == str(technique)]
        return statistics.fmean(others) if own is None and others else own

    def predicted_seconds(self, plan: Plan) -> float:
        """Seconds of one call."""
        return math.exp(self._log(plan) + self._correction(plan))

    def ordered(self, plans: Iterable[Plan]) -> list[Plan]:
        """The most promising first; shorter plans first among equals."""
        return sorted(plans, key=lambda plan: (self.predicted_seconds(plan), len(plan), str(plan)))

    def _log(self, plan: Plan) -> float:
        """Log seconds by the roofline, measured effects in place of promises."""
        known = {t: self._effect(t, compiler_of(plan)) for t in plan}
        promised = Plan(tuple(t for t in plan if known[t] is None))
        effects = sum(effect for effect in known.values() if effect is not None)
        return math.log(self.seconds_of(promised.cost(self.cost))) + effects

    def _correction(self, plan: Plan) -> float:
        keys: tuple[Callable[[Plan], object], ...] = (numerics_of, defining_of, compiler_of, _anything)
        for key in keys:
            alike = [
                math.log(seconds) - self._log(other)
                for other, seconds in self.measured.items()
                if key(other) == key(plan)
            ]
            if alike:
                return sum(alike) / len(alike)
        return 0.0


def without(plan: Plan, technique: Technique) -> Plan:
    """The plan less one technique."""
    return Plan(tuple(t for t in plan if t != technique))


def numerics_of(plan: Plan) -> tuple[str, ...]:
    """What decides a plan's answers: its compiler, its target, and every technique that changes them."""
    return tuple(str(t) for t in plan if t.stage in DEFINING or t.effect is Effect.CHANGED)


def defining_of(plan: Plan) -> tuple[str, ...]:
    """The names of a plan's precisions, compiler and target, whatever their settings."""
    return tuple(t.name() for t in plan if t.stage in DEFINING)


def compiler_of(plan: Plan) -> str:
    """What starts a plan's kernels: its compiler, and what records them; empty where PyTorch does, one by one."""
    targets = (t for t in plan if t.stage is Stage.TARGET and Fact.ON_CUDA not in t.gives)
    return " + ".join(t.name() for t in (*(t for t in plan if t.stage is Stage.COMPILE), *targets))


def _anything(plan: Plan) -> None:
    return None
