"""The technique: a small frozen value that maps a model to a model, or a training step to one, and a cost to a cost."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, ClassVar

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work


class Stage(Enum):
    """When a technique acts; a plan sorts by it."""

    FEED = 0
    REWRITE = 1
    SPARSITY = 2
    PRECISION = 3
    MEMORY = 4
    PARALLEL = 5
    COMPILE = 6
    TARGET = 7


class Family(Enum):
    """The family of acceleration that a technique belongs to."""

    HARDWARE = "hardware"
    ALGORITHM = "algorithm"
    SYSTEM = "system"


class Effect(Enum):
    """What a technique may do to the answers, hence which gate it must pass."""

    EXACT = "exact"
    """The same arithmetic in the same order."""
    ROUNDED = "rounded"
    """The same arithmetic, reassociated: error at most twice the original's own, against float64."""
    CHANGED = "changed"
    """Another computation: judged by the metric or by fidelity."""


class Technique(ABC):
    """One way to make a model faster. Subclasses are frozen dataclasses; their fields are their whole configuration."""

    stage: ClassVar[Stage]
    family: ClassVar[Family]
    effect: ClassVar[Effect]
    needs: ClassVar[frozenset[Fact]] = frozenset()
    gives: ClassVar[frozenset[Fact]] = frozenset()
    breaks: ClassVar[frozenset[Fact]] = frozenset()
    source: ClassVar[str]
    on_without: ClassVar[tuple[tuple[str, Fact], ...]] = ()
    """Settings that are True where the machine lacks a fact and False elsewhere, unless somebody says otherwise."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Optional packages that it imports inside `apply`."""
    extra: ClassVar[str] = ""
    """The extra of Vivace that installs them."""
    build_seconds: ClassVar[float] = 2.0
    """A guess at what it adds to building and loading a plan, for a search that has not seen it yet."""
    mends: ClassVar[bool] = False
    """Whether all that it gains is quality: a search adds it to plans that were refused for their answers."""
    order: ClassVar[int] = 0
    """When it acts among those of its stage; those of the same order act in the order of their names."""
    tries_all: ClassVar[bool] = False
    """Whether a training's search tries every setting, not only until one is kept: for those that cost little to try
    and of which one is often faster than another that is fast."""
    unit_roundoff: ClassVar[float] = 2.0**-24
    """Of the coarsest numbers that it has a training step compute in; float32's unless it says otherwise."""
    program_entry: ClassVar[str] = ""
    """A worker entry that opens its programs during the search instead of the store's own; for planted faults."""

    @classmethod
    def name(cls) -> str:
        """The name that users type: the class's name in lower case with hyphens."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def here(cls, machine: Machine) -> dict[str, Any]:
        """The settings that this machine asks for: what its name alone stands for, beside its defaults."""
        return {setting: fact not in machine.facts() for setting, fact in cls.on_without}

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Settings worth trying here, most promising first; may yield none."""
        yield cls()

    def gentler(self, work: Work) -> Iterator[Technique]:
        """Settings that change the answers less and less, and gain less; none where there are no such."""
        return iter(())

    def unfused(self) -> Technique | None:
        """The same without fusing operators, to measure what fusing them gains; None where that cannot be asked for."""
        return None

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """Why it would have nothing to do in a plan with these techniques; None when it has something."""
        return None

    def told_beside(self, others: Sequence[Technique]) -> str:
        """What a plan with these other techniques calls it: its name and settings, with what is true beside them."""
        return str(self)

    def rewrite(self, cost: Cost) -> Cost:
        """The work of one call afterwards, for ranking and for `predict`."""
        return cost

    @classmethod
    def runs(cls) -> bool:
        """Whether it acts on programs that are to be run."""
        return cls.apply is not Technique.apply

    @classmethod
    def trains(cls) -> bool:
        """Whether it acts on training."""
        return cls.equip is not Technique.equip

    @classmethod
    def training_effect(cls) -> Effect:
        """What it may do to a training step. Coarser numbers (`unit_roundoff`) only round there: weights and
        updates stay as they are, and every gradient is held to what that roundoff explains."""
        return Effect.ROUNDED if cls.unit_roundoff > Technique.unit_roundoff else cls.effect

    def apply(self, model: Model, work: Work) -> Model:
        """Consume a model and return the changed one. Raises NotApplicable(reason) if nothing would change."""
        raise NotApplicable(f"{self.name()} acts on training alone")

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with this technique in its step. Raises NotApplicable(reason) if nothing would change."""
        raise NotApplicable(f"{self.name()} does not act on training")

    def settings(self) -> dict[str, Any]:
        """The fields and their values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The name, and the settings that are not their defaults."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        chosen = {key: value for key, value in self.settings().items() if value != defaults[key]}
        values = ", ".join(f"{key}={value}" for key, value in chosen.items())
        return f"{self.name()}({values})" if values else self.name()
