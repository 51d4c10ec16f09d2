"""Toy techniques and trials for the tests of the search, which know plain values only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.program import Model
from vivace.core.result import Trial, TrialStage
from vivace.core.signature import Signature
from vivace.core.structure import Structure
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work

FACTS = frozenset({Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.RUNNABLE, Fact.UNCOMPILED, Fact.UNQUANTIZED, Fact.ON_CPU})


@dataclass(frozen=True, kw_only=True)
class InferenceMode(Technique):
    """A rung."""

    stage, family, effect, source = Stage.MEMORY, Family.SYSTEM, Effect.EXACT, "toy"

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclass(frozen=True, kw_only=True)
class Threads(Technique):
    """A rung with two settings."""

    stage, family, effect, source = Stage.PARALLEL, Family.SYSTEM, Effect.ROUNDED, "toy"
    count: int = 1

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        yield cls(count=1)
        yield cls(count=2)

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(threads=self.count)

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclass(frozen=True, kw_only=True)
class Halve(Technique):
    """A precision."""

    stage, family, effect, source = Stage.PRECISION, Family.ALGORITHM, Effect.CHANGED, "toy"
    needs = frozenset({Fact.FLOAT32})
    breaks = frozenset({Fact.FLOAT32})

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(flops=cost.flops / 2)

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclass(frozen=True, kw_only=True)
class Dial(Halve):
    """A precision with milder settings, 1 to 7."""

    keep: int = 0

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        yield cls()

    def gentler(self, work: Work) -> Iterator[Technique]:
        return (Dial(keep=count) for count in range(1, 8))


@dataclass(frozen=True, kw_only=True)
class Prune(Technique):
    """Less work, and other answers."""

    stage, family, effect, source = Stage.SPARSITY, Family.ALGORITHM, Effect.CHANGED, "toy"
    gives = frozenset({Fact.PRUNED})

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(flops=cost.flops / 4)

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclass(frozen=True, kw_only=True)
class Repair(Technique):
    """Wins back what pruning lost."""

    stage, family, effect, source = Stage.SPARSITY, Family.ALGORITHM, Effect.CHANGED, "toy"
    needs = frozenset({Fact.PRUNED})
    mends = True

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclass(frozen=True, kw_only=True)
class Engine(Technique):
    """A compiler."""

    stage, family, effect, source = Stage.COMPILE, Family.ALGORITHM, Effect.ROUNDED, "toy"
    needs = frozenset({Fact.UNCOMPILED})
    breaks = frozenset({Fact.UNCOMPILED})

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(flops=cost.flops / 3)

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclass(frozen=True, kw_only=True)
class Turbine(Engine):
    """Another compiler, which promises less."""

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(flops=cost.flops / 1.5)


@dataclass(frozen=True, kw_only=True)
class OnCard(Technique):
    """Needs a card."""

    stage, family, effect, source = Stage.TARGET, Family.HARDWARE, Effect.ROUNDED, "toy"
    needs = frozenset({Fact.CUDA_DEVICE})

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclass(frozen=True, kw_only=True)
class Packed(Technique):
    """Writes a form that nothing runs by itself."""

    stage, family, effect, source = Stage.PRECISION, Family.ALGORITHM, Effect.CHANGED, "toy"
    needs = frozenset({Fact.FLOAT32})
    breaks = frozenset({Fact.FLOAT32, Fact.RUNNABLE})

    def apply(self, model: Model, work: Work) -> Model:
        return model


KNOWN: dict[str, type[Technique]] = {
    kind.name(): kind for kind in (InferenceMode, Threads, Halve, Engine, Turbine, OnCard, Packed)
}
MACHINE = Machine("toy processor", "x86_64", (), 2, 2, 1 << 30, "Linux")
SIGNATURE = Signature(Structure("dict"), 0, (), Structure("tuple"), ())
WORK = Work("toy", SIGNATURE, FACTS, Cost(flops=1e9, weight_bytes=0, activation_bytes=0, operators=0), Path())


def trial(plan: Plan, speedup: float | None, outcome: Outcome = Outcome.OK) -> Trial:
    """A trial with a tight interval."""
    interval = Interval(speedup, speedup * 0.99, speedup * 1.01) if speedup else None
    return Trial(plan, outcome, TrialStage.SEARCH, speedup=interval)
