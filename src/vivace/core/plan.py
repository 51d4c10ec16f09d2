"""A plan: a tuple of techniques in the order of their stages, and the one pass that says whether it is legal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.structure import CONSTANTS
from vivace.core.technique import Effect, Technique

BASELINE_NAME = "original"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Techniques to apply one after the other. The empty plan is the original."""

    techniques: tuple[Technique, ...] = ()

    @staticmethod
    def of(techniques: Iterable[Technique]) -> Plan:
        """A plan of these techniques, sorted by stage, then by their order in it, then by name."""
        return Plan(tuple(sorted(techniques, key=lambda t: (t.stage.value, t.order, t.name()))))

    @property
    def effect(self) -> Effect:
        """The strongest effect of its techniques on a program's answers."""
        return _strongest(technique.effect for technique in self.techniques)

    @property
    def training_effect(self) -> Effect:
        """The strongest effect of its techniques on a training step."""
        return _strongest(technique.training_effect() for technique in self.techniques)

    @property
    def build_seconds(self) -> float:
        """A guess at how long building and loading it takes, from its techniques' own."""
        return float(sum(technique.build_seconds for technique in self.techniques))

    def cost(self, cost: Cost) -> Cost:
        """The work of one call after every technique."""
        for technique in self.techniques:
            cost = technique.rewrite(cost)
        return cost

    def illegal(self, facts: frozenset[Fact]) -> str | None:
        """Why the plan cannot work, as a sentence for the report; None when it can.

        Walks the facts from those given: each technique needs some, makes some true and some false. In the end
        something must be able to run the program, if there is one.
        """
        for technique in self.techniques:
            reason = technique.idle_beside([other for other in self.techniques if other is not technique])
            if reason is not None:
                return reason
        seen: dict[str, Technique] = {}
        broken_by: dict[Fact, Technique] = {}
        for technique in self.techniques:
            if technique.name() in seen:
                return f"{technique.name()} appears twice"
            seen[technique.name()] = technique
            for fact in sorted(technique.needs - facts, key=lambda f: f.name):
                lost = f", which {broken_by[fact]} took away" if fact in broken_by else ""
                return f"{technique} needs {fact.value}{lost}"
            broken_by.update(dict.fromkeys(technique.breaks, technique))
            facts = facts - technique.breaks | technique.gives
        # PyTorch runs whatever lies on a CUDA device; a training has no program
        runs = {Fact.RUNNABLE, Fact.ON_CUDA, Fact.TRAINING}
        if not runs & facts:
            by = broken_by.get(Fact.RUNNABLE)
            return f"{by} needs a later technique that can run its program" if by else f"nothing in {self} runs it"
        return None

    def to_json(self) -> list[dict[str, Any]]:
        """A JSON value that `read_plan` reads back."""
        return [{"technique": t.name(), "settings": t.settings()} for t in self.techniques]

    def __str__(self) -> str:
        told = (one.told_beside([other for other in self.techniques if other is not one]) for one in self.techniques)
        return " + ".join(told) or BASELINE_NAME

    def __iter__(self) -> Any:
        return iter(self.techniques)

    def __len__(self) -> int:
        return len(self.techniques)


def _strongest(effects: Iterable[Effect]) -> Effect:
    present = set(effects)
    return next((effect for effect in (Effect.CHANGED, Effect.ROUNDED) if effect in present), Effect.EXACT)


def read_plan(node: Sequence[Mapping[str, Any]], known: Mapping[str, type[Technique]]) -> Plan:
    """Read what `Plan.to_json` wrote, with the techniques that are known here. Raises KeyError for an unknown one, and
    TypeError for settings that it does not have or that are no numbers or texts."""
    for entry in node:
        for name, value in entry["settings"].items():
            if not isinstance(value, CONSTANTS):
                raise TypeError(
                    f"the setting {name} of {entry['technique']} is {value!r}; allowed is a number or a text"
                )
    return Plan(tuple(known[entry["technique"]](**entry["settings"]) for entry in node))
